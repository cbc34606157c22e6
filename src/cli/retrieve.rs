//! `turret retrieve`.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value, json};
use turret_retrieval::filter::pointer;

use super::node_url::node_url;
use super::table::table;
use super::{UsageError, block_on, say, say_json};

/// Asks a running node for ads
///
/// For example, for a user who is looking at a pin about armchairs:
///
///   turret retrieve --user u83911 --interest home_decor/armchair:0.92 -k 10
///
/// Only of ads that may be shown to somebody of 25 in the US, and not of two advertisers:
///
///   turret retrieve --user u83911 --filter 'countries has US and min_age <= 25 and not advertiser_id in [a17, a18]'
///
/// Prints a table, or with --json the node's answer as it came.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The node's HTTP address
    #[arg(long, default_value = "http://127.0.0.1:7101", value_name = "URL", value_parser = node_url)]
    url: String,
    /// The user; without one the answer rests on context and demographics alone
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Where the ad will be shown: related_pins, search or home
    #[arg(long, default_value = "related_pins")]
    surface: String,
    /// An interest of the subject pin, with its confidence (1 if left out); may be repeated
    #[arg(long = "interest", value_name = "ID[:CONFIDENCE]")]
    interests: Vec<String>,
    /// The subject pin itself; where the model knows it, its own interests are used
    #[arg(long, value_name = "ITEM")]
    subject: Option<String>,
    /// What the user searches for; with --surface search
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// Also show what each ad would score without the context
    #[arg(long)]
    explain_scores: bool,
    /// Also show how each shard searched, what share of its ads passes, and how many it compared with the query
    #[arg(long)]
    explain_plan: bool,
    /// How many ads
    #[arg(short, default_value_t = 10)]
    k: u64,
    /// Only ads whose attributes pass, such as 'countries has US and min_age <= 25'
    ///
    /// One word: `status = "active"`, `!=`, `in [a, b]`. Several words: `countries has US`, `in [US, CA]` for any of them.
    /// Numbers: `=`, `!=`, `<`, `<=`, `>`, `>=`. Joined by `and`, `or`, `not` and parentheses; `and` binds before `or`. Quotes,
    /// " or ', are needed where a word has more than letters, digits and _ - . + : /. An ad without the attribute fails the
    /// comparison. JSON is taken too: {"has": {"countries": "US"}}. The whole syntax: docs/filters.md
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// The request's deadline
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    deadline_ms: u64,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let body = request(&arguments)?;
    let answer = block_on(post(&arguments.url, &body))?.map_err(|error| pointed(error, arguments.filter.as_deref()))?;
    if arguments.json {
        return say_json(&answer);
    }
    say(render(&answer));
    Ok(())
}

fn request(arguments: &Arguments) -> anyhow::Result<Value> {
    let interests = arguments.interests.iter().map(|text| interest(text)).collect::<Result<Vec<_>, _>>()?;
    let mut body = Map::new();
    body.insert("surface".to_owned(), json!(arguments.surface));
    body.insert("k".to_owned(), json!(arguments.k));
    body.insert("deadline_ms".to_owned(), json!(arguments.deadline_ms));
    if let Some(user) = &arguments.user {
        body.insert("user_id".to_owned(), json!(user));
    }
    let has_subject = !interests.is_empty() || arguments.subject.is_some();
    if has_subject || arguments.query.is_some() {
        let subject = has_subject.then(|| json!({ "item_id": arguments.subject, "interests": interests }));
        body.insert("context".to_owned(), json!({ "subject": subject, "query": arguments.query }));
    }
    let explained = [(arguments.explain_scores, "scores"), (arguments.explain_plan, "filter_plan")];
    let explained: Vec<&str> =
        explained.into_iter().filter_map(|(is_wanted, what)| is_wanted.then_some(what)).collect();
    if !explained.is_empty() {
        body.insert("explain".to_owned(), json!(explained));
    }
    if let Some(filter) = &arguments.filter {
        body.insert("filter".to_owned(), filter_of(filter)?);
    }
    Ok(Value::Object(body))
}

/// The filter as it is sent: JSON where it begins like an object, else a text, which the node reads.
fn filter_of(text: &str) -> anyhow::Result<Value> {
    if !text.trim_start().starts_with('{') {
        return Ok(json!(text));
    }
    let json = serde_json::from_str(text);
    json.map_err(|error| UsageError::Argument(format!("--filter: not JSON: {error}")).into())
}

/// What the node refused, with the place in the text of the filter where it named one.
fn pointed(error: anyhow::Error, filter: Option<&str>) -> anyhow::Error {
    let column = error.downcast_ref::<Refused>().and_then(|refused| refused.column);
    match column.zip(filter) {
        Some((column, filter)) => anyhow!("{error}\n{}", pointer(filter, column)),
        None => error,
    }
}

/// A problem that a node answered with.
#[derive(Debug, thiserror::Error)]
#[error("{status} ({code}): {detail}")]
struct Refused {
    status: u16,
    code: String,
    detail: String,
    /// Where in the text of a filter, in characters from 1.
    column: Option<usize>,
}

/// Reads `id` or `id:confidence`; a colon that no number follows belongs to the id.
fn interest(text: &str) -> anyhow::Result<Value> {
    let (id, confidence) = match text.rsplit_once(':').map(|(id, tail)| (id, tail.parse::<f64>())) {
        Some((id, Ok(confidence))) => (id, confidence),
        Some((_, Err(_))) | None => (text, 1.0),
    };
    if id.is_empty() || !(confidence > 0.0 && confidence <= 1.0) {
        let rule = "needs an id and a confidence in (0, 1]";
        return Err(UsageError::Argument(format!("--interest: `{text}` {rule}")).into());
    }
    Ok(json!({ "id": id, "confidence": confidence }))
}

/// Sends one request; a problem becomes an error that reads like one.
pub(super) async fn post(url: &str, body: &Value) -> anyhow::Result<Value> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
    let url = format!("{url}/v1/candidates:retrieve");
    // The address is told once.
    let sent = client.post(&url).json(body).send().await.map_err(reqwest::Error::without_url);
    let response = sent.with_context(|| format!("cannot reach {url}"))?;
    let status = response.status();
    let answer: Value = response.json().await.with_context(|| format!("{url} did not answer with JSON"))?;
    if !status.is_success() {
        let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let column = answer.get("column").and_then(Value::as_u64).map(|column| column as usize);
        return Err(Refused { status: status.as_u16(), code: text("code"), detail: text("detail"), column }.into());
    }
    Ok(answer)
}

fn render(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let score = |value: &Value| value.as_f64().map_or_else(String::new, |score| format!("{score:.4}"));
    let candidates = answer["candidates"].as_array().map_or(&[][..], Vec::as_slice);
    let is_compared = candidates.iter().any(|candidate| candidate.get("score_without_context").is_some());
    let row = |candidate: &Value| {
        let advertiser = candidate.get("advertiser_id").map_or_else(String::new, text);
        let mut row = vec![text(&candidate["ad_id"]), score(&candidate["score"])];
        row.extend(is_compared.then(|| score(&candidate["score_without_context"])));
        row.extend([advertiser, candidate["shard"].to_string()]);
        row
    };
    let rows: Vec<Vec<String>> = candidates.iter().map(row).collect();
    let mut heads = vec!["ad", "score", "without context", "advertiser", "shard"];
    if !is_compared {
        heads.remove(2);
    }
    let user = &answer["user_state"];
    let coverage = &answer["coverage"];
    let mut lines = vec![table(&heads, &rows), String::new()];
    if answer["exhausted"] == json!(true) {
        lines.push("no further ads pass the filter".to_owned());
    }
    lines.push(format!(
        "{} · tier {} (history {}, context {}) · {}/{} shards, {:.1} % of the ads · {} µs · generation {}",
        text(&answer["status"]),
        text(&user["tier"]),
        text(&user["history"]),
        text(&user["context"]),
        coverage["shards"]["answered"],
        coverage["shards"]["asked"],
        100.0 * coverage["documents"].as_f64().unwrap_or_default(),
        answer["timings_us"]["total"],
        text(&answer["generation"]["id"]),
    ));
    for reason in coverage["reasons"].as_array().into_iter().flatten() {
        lines.push(format!("not complete: {}", text(reason)));
    }
    if let Some(plans) = answer["filter_plan"].as_array() {
        lines.extend([String::new(), plans_table(plans)]);
    }
    lines.join("\n")
}

/// How each shard searched.
fn plans_table(plans: &[Value]) -> String {
    let share = |value: &Value| value.as_f64().map_or_else(String::new, |share| format!("{:.2} %", 100.0 * share));
    let count = |value: &Value| value.as_u64().map_or_else(String::new, |count| count.to_string());
    let row = |plan: &Value| {
        let strategy = plan["strategy"].as_str().unwrap_or_default().to_owned();
        let (passes, near) = (share(&plan["selectivity"]), share(&plan["selectivity_near"]));
        vec![count(&plan["shard"]), strategy, passes, near, count(&plan["list"]), count(&plan["distances"])]
    };
    let rows: Vec<Vec<String>> = plans.iter().map(row).collect();
    table(&["shard", "strategy", "passes", "passes nearby", "list", "compared"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_json_where_it_begins_like_an_object_and_else_a_text() {
        assert_eq!(filter_of(" {\"not\": {}}").unwrap(), json!({ "not": {} }));
        assert_eq!(filter_of("countries has US").unwrap(), json!("countries has US"));
        assert!(filter_of("{countries}").unwrap_err().to_string().starts_with("--filter: not JSON"));
        let column = Some(11);
        let refused = Refused { status: 400, code: "c".to_owned(), detail: "d".to_owned(), column };
        let shown = pointed(refused.into(), Some("min_age < 'a'")).to_string();
        assert_eq!(shown, "400 (c): d\nmin_age < 'a'\n          ^");
        assert_eq!(pointed(anyhow!("else"), Some("x")).to_string(), "else");
    }

    #[test]
    fn how_shards_searched_is_shown_below() {
        let plan = json!({ "shard": 3, "strategy": "exact_postings", "selectivity": 0.0125, "distances": 40 });
        let shown = plans_table(&[plan]);
        let words: Vec<&str> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words, ["3", "exact_postings", "1.25", "%", "40"]);
    }

    #[test]
    fn an_interest_has_a_confidence_or_one() {
        let check = |text: &str, id: &str, confidence: f64| {
            assert_eq!(interest(text).unwrap(), json!({ "id": id, "confidence": confidence }));
        };
        check("home_decor/armchair:0.5", "home_decor/armchair", 0.5);
        check("281", "281", 1.0);
        check("a:b", "a:b", 1.0);
        for bad in ["x:0", "x:1.5", "", ":0.5", "x:NaN"] {
            assert!(interest(bad).is_err(), "{bad}");
        }
    }
}
