//! What operators' commands ask of a running node, on its admin address.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Asks one node.
pub(super) struct Operator {
    client: reqwest::Client,
    base: String,
}

impl Operator {
    /// Of the node with this admin address; no answer may take longer than `timeout`.
    pub(super) fn of(admin: &str, timeout: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(timeout).build()?;
        Ok(Self { client, base: admin.to_owned() })
    }

    /// What the node answers to a command.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        answer(self.client.post(&url).json(body), &url).await
    }

    /// What the node answers to a question.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        answer(self.client.get(&url), &url).await
    }

    /// What the control node says in its status under `field`; nothing where it cannot be reached.
    pub(super) async fn control(&self, field: &str) -> anyhow::Result<Option<Value>> {
        let cluster = self.get("/admin/status").await?;
        let nodes = cluster["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(nodes.iter().map(|node| &node[field]).find(|value| !value.is_null()).cloned())
    }
}

/// Whether nobody listens where a node was asked.
pub(super) fn is_nobody(error: &anyhow::Error) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
}

/// The JSON that a node answers with.
async fn answer(request: reqwest::RequestBuilder, url: &str) -> anyhow::Result<Value> {
    let sent = request.send().await.map_err(reqwest::Error::without_url);
    let response = sent.with_context(|| format!("no node answers at {url}"))?;
    let status = response.status();
    let body: Value = response.json().await.with_context(|| format!("{url}: the answer is not JSON"))?;
    if !status.is_success() {
        bail!("{url}: {}", body["detail"].as_str().unwrap_or(status.as_str()));
    }
    Ok(body)
}
