use serde_json::{Value, json};

use super::*;
use crate::filter::VALUES_MAX;
use crate::item::Attribute;

fn kinds() -> BTreeMap<Box<str>, AttributeKind> {
    [
        ("status", AttributeKind::Keyword),
        ("advertiser_id", AttributeKind::Keyword),
        ("countries", AttributeKind::Keywords),
        ("min_age", AttributeKind::Number),
        ("price level", AttributeKind::Number),
        ("In", AttributeKind::Keyword),
    ]
    .into_iter()
    .map(|(name, kind)| (name.into(), kind))
    .collect()
}

fn ad() -> BTreeMap<Box<str>, Attribute> {
    [
        ("status", Attribute::Keyword("active".into())),
        ("countries", Attribute::Keywords(vec!["US".into(), "IN".into()])),
        ("min_age", Attribute::Number(21.0)),
        ("price level", Attribute::Number(-2e-3)),
        ("In", Attribute::Keyword("say \"é\"\n".into())),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect()
}

fn read(text: &str) -> Filter {
    parse(text, &kinds()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn conditions_mean_what_they_say() {
    let check = |text: &str, passes: bool| assert_eq!(read(text).matches(&ad()), passes, "{text}");
    check(r#"status = "active" and countries has "US" and min_age <= 25 and not advertiser_id in ["a", "b"]"#, true);
    check("status != \"active\"", false);
    check("status!='paused'", true);
    check("min_age<21", false);
    check("min_age<=21 and min_age>=21 And min_age>20.5 AND NOT min_age>21", true);
    check("min_age = 2.1e1", true);
    check("min_age != 21", false);
    // The ad names no advertiser.
    check("advertiser_id = 77", false);
    check("advertiser_id != 77", true);
    check("not not (((status = active)))", true);
    // `and` before `or`, and `not` before both.
    check("status = paused and min_age = 1 or countries has US", true);
    check("status = paused and (min_age = 1 or countries has US)", false);
    check("not status = active or min_age = 21", true);
    check("not (status = active or min_age = 21)", false);
    check("true", true);
    check("false or not true", false);
    // Where a value is due, every word is one.
    check("countries has IN", true);
    check("countries in [OR,DE , 'IN']", true);
    check("status = not", false);
    check("`price level` > -1 and `price level` <= -0.002", true);
    check(r#"`In` = "say \"\u{E9}\"\n" and `In`='say "é"\u{a}'"#, true);
    check("\n\tstatus =\r\n active ", true);
}

#[test]
fn a_text_says_what_json_says() {
    let check = |text: &str, json: Value| {
        let filter = Filter::from_json(&json, &kinds()).unwrap();
        assert_eq!(read(text), filter);
        assert_eq!(Filter::from_json(&json!(text), &kinds()), Ok(filter));
    };
    check("status = active", json!({"eq": {"status": "active"}}));
    check("status != active", json!({"not": {"eq": {"status": "active"}}}));
    check("countries has US", json!({"has": {"countries": "US"}}));
    check("countries in [US, DE, US]", json!({"in": {"countries": ["DE", "US"]}}));
    check("advertiser_id in [7, \"8\"]", json!({"in": {"advertiser_id": [8, "7"]}}));
    check("advertiser_id = 18446744073709551615", json!({"eq": {"advertiser_id": u64::MAX}}));
    check("min_age < 3", json!({"lt": {"min_age": 3}}));
    check("min_age = 3.5", json!({"eq": {"min_age": 3.5}}));
    check("true", json!({"and": []}));
    check("not false", json!({"not": {"or": []}}));
    check("(status = a)", json!({"and": [{"or": [{"eq": {"status": "a"}}]}]}));
    check(
        "status = a or min_age > 1 and (min_age <= 2 or countries has US)",
        json!({"or": [
            {"eq": {"status": "a"}},
            {"and": [{"gt": {"min_age": 1}}, {"or": [{"lte": {"min_age": 2}}, {"has": {"countries": "US"}}]}]},
        ]}),
    );
}

#[test]
fn a_bad_text_names_the_column_and_the_rule() {
    let check = |text: &str, column: usize, rule: &str| {
        let error = parse(text, &kinds()).unwrap_err();
        assert_eq!(error.column(), Some(column), "{text}: {error}");
        assert!(error.rule.to_string().starts_with(rule), "{text}: {error}");
    };
    check("", 1, "expected a condition, found the end");
    check("status", 7, "expected `=`, `!=`, `<`, `<=`, `>`, `>=`, `has` or `in` behind the name of an attribute");
    check("status == active", 9, "expected a number, a word or a text in quotes, found `=`");
    check("status = active min_age = 1", 17, "expected `and`, `or` or the end, found `min_age`");
    check("status = active and", 20, "expected a condition, found the end");
    check("status = active and or min_age = 1", 21, "expected a condition, found `or`");
    check("status = active; drop", 16, "expected `and`, `or` or the end, found `;`");
    check("(status = active", 17, "expected `and`, `or` or `)`, found the end");
    check("status = active)", 16, "expected `and`, `or` or the end, found `)`");
    check("status in \"a\"", 11, "expected `[`, found `\"`");
    check("status in [a b]", 14, "expected `,` or `]`, found `b`");
    check("status in [a,]", 14, "expected a number, a word or a text in quotes, found `]`");
    check("status in []", 11, "must be a list of 1 to 1000 values");
    check("status = \"active", 10, "text without its closing \"");
    check("min_age = 1 and status = 'a\\'", 26, "text without its closing '");
    check("`price level = 3", 1, "text without its closing `");
    check(r"status = 'é\x'", 13, "unknown escape");
    check(r"status = '\u{d800}'", 12, "unknown escape");
    check(r"status = '\u{1234567}'", 12, "unknown escape");
    check("min_age = 1 and contries has US", 17, "unknown attribute `contries`; is `countries` meant?");
    check("colour = red", 1, "unknown attribute `colour`; this generation has In, advertiser_id, countries, min_age");
    check(&format!("{} = red", "é".repeat(9_000)), 1, "unknown attribute `éé");
    check("min_age <= \"25\"", 12, "must be a number: `min_age` is one");
    check("min_age <= young", 12, "must be a number: `min_age` is one");
    check("min_age <= max_age", 12, "must be a number: `min_age` is one");
    check("min_age < NaN", 11, "must be a number");
    check("min_age < 1e999", 11, "must be a number");
    check("status = 2.5", 10, "must be a string of 1 to 128 bytes, or an integer: `status` holds words");
    check("status = ''", 10, "must be a string of 1 to 128 bytes");
    check(&format!("status in [a, {}]", "b".repeat(129)), 15, "must be a string of 1 to 128 bytes");
    check("min_age has 5", 1, "`min_age` holds a number; use `=`, `!=`, `<`, `<=`, `>` or `>=`");
    check("min_age in [5]", 1, "`min_age` holds a number; use");
    check("status has active", 1, "`status` holds one word; use `=`, `!=` or `in`");
    check("true and countries = US", 10, "`countries` holds several words; use `has` or `in`");
    check("countries < US", 1, "`countries` holds several words");
}

#[test]
fn what_is_too_large_is_refused_by_one_rule_and_overflows_nothing() {
    let check = |text: String, column: usize, rule: FilterRule| {
        let error = parse(&text, &kinds()).unwrap_err();
        assert_eq!((error.place, error.rule), (Place::Column(column), rule));
    };
    let or = |terms: usize| vec!["min_age = 1"; terms].join(" or ");
    // One for `or` itself.
    assert!(parse(&or(255), &kinds()).is_ok());
    check(or(256), 255 * 15 + 1, FilterRule::Conditions);
    check(or(10_000), 255 * 15 + 1, FilterRule::Conditions);
    let nested = |open: &str, close: &str, levels| format!("{}true{}", open.repeat(levels), close.repeat(levels));
    assert!(parse(&nested("(", ")", 16), &kinds()).is_ok());
    check(nested("(", ")", 17), 17, FilterRule::Depth);
    check(nested("(", ")", 1_000), 17, FilterRule::Depth);
    check("(".repeat(TEXT_BYTES_MAX), 17, FilterRule::Depth);
    assert!(parse(&nested("not ", "", 15), &kinds()).is_ok());
    check(nested("not ", "", 16), 65, FilterRule::Depth);
    check(nested("not ", "", 1_000), 65, FilterRule::Depth);
    // `or` within `and` within `or` ...: as deep as the conditions go, not as the parentheses.
    check(nested("true or true and (", ")", 8), 7 * 18 + 9, FilterRule::Depth);
    let list = |values: usize| format!("status in [{}]", vec!["a"; values].join(","));
    assert!(parse(&list(VALUES_MAX), &kinds()).is_ok());
    check(list(VALUES_MAX + 1), 11, FilterRule::List);
    check(list(200_000), 11, FilterRule::List);
    let lists = |count: usize| {
        let list = |n| (0..VALUES_MAX).map(|value| format!("{n}-{value}")).collect::<Vec<_>>().join(",");
        (0..count).map(|n| format!("status in [{}]", list(n))).collect::<Vec<_>>().join(" or ")
    };
    assert!(parse(&lists(4), &kinds()).is_ok());
    assert_eq!(parse(&lists(5), &kinds()).unwrap_err().rule, FilterRule::Values);
    let bytes = TEXT_BYTES_MAX + 1;
    check(" ".repeat(bytes), 1, FilterRule::TooLong { bytes });
}

#[test]
fn a_filter_that_no_form_says_prints_as_one_that_means_the_same() {
    use crate::filter::{End, NumberRange};
    let range = NumberRange { low: Some((18.0, End::Included)), high: Some((30.0, End::Excluded)) };
    let field = Box::<str>::from("min_age");
    let filter = Filter::Not(Box::new(Filter::Between { field: field.clone(), range }));
    assert_eq!(filter.to_string(), "not (min_age >= 18 and min_age < 30)");
    let every = Filter::Between { field, range: NumberRange::default() };
    assert!(read(&every.to_string()).matches(&ad()));
    assert_eq!(Filter::And(vec![every]).to_string(), "min_age >= -1.7976931348623157e308");
}
