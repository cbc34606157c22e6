//! Requests that break a rule: a status, a stable code, the field and the rule; and the node goes on.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Reply, get, send};
use crate::harness::{Cluster, Node, request_of};

/// A problem, as RFC 9457 has it, with what ours add.
#[track_caller]
fn check_problem(reply: &Reply, status: u16, code: &str, field: Option<&str>, rule: &str) {
    assert_eq!(reply.status, status, "{reply:#?}");
    assert_eq!(reply.content_type, "application/problem+json", "{reply:#?}");
    let problem = reply.json();
    assert_eq!(problem["status"], status, "{problem:#}");
    assert_eq!(problem["code"], code, "{problem:#}");
    assert_eq!(problem["type"], format!("urn:turret:problem:{code}"), "{problem:#}");
    assert_eq!(problem["field"].as_str(), field, "{problem:#}");
    let said = problem[if field.is_some() { "rule" } else { "detail" }].as_str().unwrap_or_default();
    assert!(said.contains(rule), "`{rule}` is not in {problem:#}");
    // A text of a megabyte is not sent back whole.
    assert!(reply.text.len() < 4_096, "{} bytes", reply.text.len());
}

/// A node that must be as well after a test as before.
struct Tried(Cluster);

impl Tried {
    fn start() -> Self {
        Self(Cluster::start(&["a"]))
    }

    fn node(&self) -> &Node {
        &self.0.nodes[0]
    }

    /// Sends a body to the retrieval, which refuses it.
    #[track_caller]
    fn refuses(&self, body: impl Into<Vec<u8>>, field: &str, rule: &str) {
        let url = format!("{}/v1/candidates:retrieve", self.node().http);
        check_problem(&send(Method::POST, &url, Some(body.into())), 400, "invalid_request", Some(field), rule);
    }

    /// Sends a sound request with one field changed, which is refused for that field.
    #[track_caller]
    fn refuses_field(&self, name: &str, value: Value, field: &str, rule: &str) {
        let mut body = request_of("u1");
        body[name] = value;
        self.refuses(body.to_string(), field, rule);
    }

    /// Sends events of `u1`, which are refused.
    #[track_caller]
    fn refuses_events(&self, body: &Value, field: &str, rule: &str) {
        let url = format!("{}/v1/users/u1/events", self.node().http);
        let reply = send(Method::PUT, &url, Some(body.to_string().into_bytes()));
        check_problem(&reply, 400, "invalid_request", Some(field), rule);
    }

    #[track_caller]
    fn is_well(&self) {
        get(&format!("{}/readyz", self.node().http)).expect(200);
        let answer = self.node().retrieve(&request_of("u1"));
        assert_eq!(answer["status"], "full", "{answer:#}");
        assert_ne!(answer["user_state"]["history"], "stale", "nothing was written: {answer:#}");
        self.0.assert_no_panic();
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    let tried = Tried::start();
    let check = |name: &str, value: Value, rule: &str| tried.refuses_field(name, value, name, rule);
    check("k", json!(0), "0 is not in 1..=2000");
    check("k", json!(1_000_000), "1000000 is not in 1..=2000");
    check("k", json!(-1), "invalid value");
    check("k", json!(1.5), "invalid type");
    check("deadline_ms", json!(0), "0 is not in 1..=10000");
    check("deadline_ms", json!(10_001), "10001 is not in 1..=10000");
    check("min_coverage", json!(1.5), "1.5 is not in 0..=1");
    check("min_coverage", json!(-0.5), "-0.5 is not in 0..=1");
    check("max_state_age_s", json!(-1), "invalid value");
    tried.refuses_field("demographics", json!({ "age": 121 }), "demographics.age", "121 is not in 0..=120");
    tried.refuses_field("demographics", json!({ "age": 300 }), "demographics.age", "invalid value");
    tried.refuses_field("demographics", json!({ "country": "" }), "demographics.country", "1 to 16 bytes");
    tried.is_well();
}

#[test]
fn shapes_that_the_interface_does_not_have_are_refused() {
    let tried = Tried::start();
    let check = |name: &str, value: Value, rule: &str| tried.refuses_field(name, value, name, rule);
    check("surface", json!("billboard"), "unknown variant `billboard`");
    check("surface", json!(null), "expected value");
    check("k", json!("ten"), "invalid type");
    check("user_id", json!(["u1"]), "an id");
    check("user_id", json!(""), "must not be empty");
    check("user_id", json!("u\u{0}1"), "control characters");
    check("user_id", json!("x".repeat(1_000_000)), "is 1000000 bytes long, the limit is 128");
    check("context", json!("a chair"), "invalid type");
    check("crowding", json!("advertiser_id"), "invalid type");
    check("colour", json!("red"), "unknown field `colour`");
    let crowding = |field: &str, max: u64| json!({ "field": field, "max": max });
    tried.refuses_field("crowding", crowding("advertiser_id", 0), "crowding.max", "0 is not in 1..=2000");
    tried.refuses_field("crowding", crowding("colour", 5), "crowding.field", "no ad has an attribute `colour`");
    tried.refuses_field("crowding", crowding("bid", 5), "crowding.field", "`bid` holds a number, must hold one word");
    tried.refuses_field("explain", json!(["everything"]), "explain[0]", "unknown variant");
    let missing = |name: &str| {
        let mut body = request_of("u1");
        drop(body.as_object_mut().map(|body| body.remove(name)));
        body.to_string()
    };
    tried.refuses(missing("k"), "body", "missing field `k`");
    tried.refuses(missing("surface"), "body", "missing field `surface`");
    tried.is_well();
}

#[test]
fn confidences_that_are_no_share_are_refused() {
    let tried = Tried::start();
    let at = "context.subject.interests[1].confidence";
    let body = |confidence: &str| {
        let interests = format!(r#"[{{"id":"a","confidence":0.5}},{{"id":"b","confidence":{confidence}}}]"#);
        format!(r#"{{"surface":"home","k":5,"context":{{"subject":{{"interests":{interests}}}}}}}"#)
    };
    let check = |confidence: &str, field: &str, rule: &str| tried.refuses(body(confidence), field, rule);
    check("NaN", at, "expected");
    check("\"NaN\"", at, "invalid type");
    check("null", at, "invalid type");
    check("1e400", at, "out of range");
    // Read as numbers, and then not in the range: infinite as single precision, and so on.
    for number in ["1e39", "-1e39", "0", "-0.0", "-0.5", "1.0001", "1e-60"] {
        check(number, "context.subject.interests", "of interest 1 is not in (0, 1]");
    }
    let many: Vec<Value> = (0..33).map(|id| json!({ "id": id, "confidence": 0.5 })).collect();
    let subject = json!({ "subject": { "interests": many } });
    tried.refuses_field("context", subject, "context.subject.interests", "33 interests, the limit is 32");
    tried.refuses_field("context", json!({ "query": "x".repeat(1_025) }), "context.query", "longer than 1024 bytes");
    tried.is_well();
}

#[test]
fn bodies_that_are_not_json_are_refused() {
    let tried = Tried::start();
    tried.refuses("", "body", "is empty");
    for other in ["k=5", " \n", "[]", r#"["r1", "u1", "home"]"#, "\"home\"", "null", "\u{feff}{}"] {
        tried.refuses(other, "body", "must be a JSON object");
    }
    tried.refuses("{k: 5}", "body", "line 1 column 2");
    tried.refuses("{\"k\": 5", "body", "EOF");
    tried.refuses("{\"context\": {\"subject\"", "context", "EOF");
    tried.refuses(request_of("u1").to_string() + "{}", "body", "trailing characters");
    tried.refuses(vec![0xff; 100], "body", "must be a JSON object");
    tried.refuses(b"{\"user_id\": \"\xff\"}", "user_id", "unicode");
    // Deeper than any reader should follow.
    tried.refuses("[".repeat(1_000_000), "body", "must be a JSON object");
    let deep = format!("{}{}", r#"{"not":"#.repeat(100_000), "}".repeat(100_000));
    let field = format!("filter{}", ".not".repeat(126));
    tried.refuses(format!(r#"{{"surface":"home","k":5,"filter":{deep}}}"#), &field, "recursion limit");
    tried.is_well();
}

#[test]
fn filters_that_mean_nothing_are_refused() {
    let tried = Tried::start();
    let check = |filter: Value, field: &str, rule: &str| tried.refuses_field("filter", filter, field, rule);
    check(
        json!({ "has": { "colour": "red" } }),
        "filter.has",
        "unknown attribute `colour`; this generation has advertiser_id",
    );
    check(
        json!({ "and": [{ "has": { "countries": "US" } }, { "like": {} }] }),
        "filter.and[1].like",
        "unknown operator",
    );
    check(json!({ "has": { "status": "active" } }), "filter.has", "use `eq`");
    check(json!({ "lte": { "min_age": "eighteen" } }), "filter.lte", "must be a number");
    check(json!({ "in": { "countries": [] } }), "filter.in", "1 to 1000 values");
    check(json!(["active"]), "filter", "exactly one key");
    check(json!("active"), "filter", "column 7: expected `=`");
    check(
        json!("countries has US and contries has DE"),
        "filter",
        "column 22: unknown attribute `contries`; is `countries`",
    );
    check(json!("min_age <= \"18\""), "filter", "column 12: must be a number");
    check(json!("status = 'active"), "filter", "column 10: text without its closing '");
    check(json!("not ".repeat(1_000)), "filter", "column 65: nested deeper than 16");
    check(json!(vec!["min_age < 3"; 10_000].join(" or ")), "filter", "column 3826: more than 256 conditions");
    let deep = (0..40).fold(json!({ "has": { "countries": "US" } }), |inner, _| json!({ "not": inner }));
    check(deep, &format!("filter{}", ".not".repeat(16)), "nested deeper than 16");
    let wide = json!({ "or": vec![json!({ "has": { "countries": "US" } }); 2_000] });
    check(wide, "filter.or[255]", "more than 256 conditions");
    tried.is_well();
}

#[test]
fn events_that_break_a_rule_are_refused_and_none_is_written() {
    let tried = Tried::start();
    let event = |name: &str, value: Value| {
        let mut event = json!({ "item_id": "item1", "event_type": "view", "timestamp_ms": 1_768_000_000_000_i64 });
        event[name] = value;
        event
    };
    let sound = || event("item_id", json!("item1"));
    let second = |bad: Value| json!({ "events": [sound(), bad] });
    let check = |body: Value, field: &str, rule: &str| tried.refuses_events(&body, field, rule);
    check(json!({ "events": [] }), "events", "must hold 1 to 1000 events, holds 0");
    check(json!({ "events": vec![sound(); 1_001] }), "events", "holds 1001");
    check(json!({}), "body", "missing field `events`");
    check(second(event("event_type", json!("stare"))), "events[1].event_type", "unknown variant `stare`");
    check(second(event("timestamp_ms", json!(-1))), "events[1].timestamp_ms", "is not in milliseconds since 1970");
    check(second(event("timestamp_ms", json!("now"))), "events[1].timestamp_ms", "invalid type");
    check(second(event("item_id", json!(""))), "events[1].item_id", "must not be empty");
    check(second(event("price", json!(3))), "events[1].price", "unknown field `price`");
    let url = format!("{}/v1/users/{}/events", tried.node().http, "x".repeat(129));
    let body = json!({ "events": [sound()] }).to_string().into_bytes();
    let reply = send(Method::PUT, &url, Some(body.clone()));
    check_problem(&reply, 400, "invalid_request", Some("user_id"), "is 129 bytes long, the limit is 128");
    let url = format!("{}/v1/users/%00/events", tried.node().http);
    let reply = send(Method::PUT, &url, Some(body));
    check_problem(&reply, 400, "invalid_request", Some("user_id"), "control characters");
    tried.is_well();
}

#[test]
fn an_ingestion_with_one_bad_line_is_refused_and_no_line_is_written() {
    let tried = Tried::start();
    let url = format!("{}/v1/events:ingest", tried.node().http);
    let sound = r#"{"user_id":"u1","item_id":"item1","event_type":"view","timestamp_ms":1768000000000}"#;
    let check = |second: &str, field: &str, rule: &str| {
        let reply = send(Method::POST, &url, Some(format!("{sound}\n{second}\n").into_bytes()));
        check_problem(&reply, 400, "invalid_request", Some(field), rule);
    };
    check("view", "lines[1]", "must be a JSON object");
    check("[]", "lines[1]", "must be a JSON object");
    check(&sound[..40], "lines[1]", "EOF while parsing");
    check(&format!("{sound} {sound}"), "lines[1]", "trailing characters");
    check(&sound.replace("\"u1\"", "\"\""), "lines[1].user_id", "must not be empty");
    check(&sound.replace("view", "stare"), "lines[1].event_type", "unknown variant `stare`");
    check(&sound.replace("1768000000000", "-1"), "lines[1].timestamp_ms", "is not in milliseconds since 1970");
    check(&sound.replace("item_id", "item"), "lines[1].item", "unknown field `item`");
    // An empty line is none, but it counts.
    check(&format!("\n{}", sound.replace("view", "stare")), "lines[2].event_type", "unknown variant");
    let reply = send(Method::POST, &url, Some(b" \n\n".to_vec()));
    check_problem(&reply, 400, "invalid_request", Some("body"), "send an event a line");
    let short = r#"{"user_id":"u1","item_id":"i","event_type":"view","timestamp_ms":1}"#;
    let reply = send(Method::POST, &url, Some(format!("{short}\n").repeat(10_001).into_bytes()));
    check_problem(&reply, 400, "invalid_request", Some("body"), "more than 10000 lines");
    tried.is_well();
}

#[test]
fn demographics_that_break_a_rule_are_refused() {
    let tried = Tried::start();
    let url = format!("{}/v1/users/u1/demographics", tried.node().http);
    let check = |body: Value, field: &str, rule: &str| {
        let reply = send(Method::PUT, &url, Some(body.to_string().into_bytes()));
        check_problem(&reply, 400, "invalid_request", Some(field), rule);
    };
    check(json!({ "age": 121 }), "age", "121 is not in 0..=120");
    check(json!({ "age": 300 }), "age", "invalid value");
    check(json!({ "country": "" }), "country", "must be 1 to 16 bytes");
    check(json!({ "gender": "x".repeat(17) }), "gender", "must be 1 to 16 bytes");
    check(json!({ "income": 3 }), "income", "unknown field `income`");
    check(json!([]), "body", "must be a JSON object");
    let url = format!("{}/v1/users/{}", tried.node().http, "x".repeat(129));
    for method in [Method::GET, Method::DELETE] {
        let reply = send(method, &url, None);
        check_problem(&reply, 400, "invalid_request", Some("user_id"), "is 129 bytes long, the limit is 128");
    }
    tried.is_well();
}

#[test]
fn doors_that_are_not_there_are_refused() {
    let tried = Tried::start();
    let (http, admin) = (&tried.node().http, &tried.node().admin);
    let check = |method: Method, url: String, status, code: &str, rule: &str| {
        check_problem(&send(method, &url, None), status, code, None, rule);
    };
    check(Method::GET, format!("{http}/"), 404, "not_found", "there is nothing at /");
    check(Method::POST, format!("{http}/v1/candidates:fly"), 404, "not_found", "/v1/candidates:fly");
    check(Method::GET, format!("{http}/v1/candidates:retrieve"), 405, "method_not_allowed", "does not take GET");
    check(Method::POST, format!("{http}/v1/users/u1/events"), 405, "method_not_allowed", "does not take POST");
    check(Method::DELETE, format!("{http}/metrics"), 405, "method_not_allowed", "does not take DELETE");
    // What operators do is not done from the callers' listener, and the other way round.
    check(Method::POST, format!("{http}/admin/refresh"), 404, "not_found", "/admin/refresh");
    check(Method::GET, format!("{admin}/admin/refresh"), 405, "method_not_allowed", "does not take GET");
    check(Method::POST, format!("{admin}/v1/candidates:retrieve"), 404, "not_found", "/v1/candidates:retrieve");
    tried.is_well();
}
