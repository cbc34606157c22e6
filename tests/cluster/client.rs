//! An HTTP client, such as a caller would have.

use std::sync::LazyLock;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// For one exchange: a test that waits longer has found a hang.
const EXCHANGE_TIME: Duration = Duration::from_secs(20);

struct Client {
    runtime: Runtime,
    http: reqwest::Client,
}

static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // A connection of its own for each request, so that no test meets one that a killed node left behind.
    let http = reqwest::Client::builder().timeout(EXCHANGE_TIME).pool_max_idle_per_host(0).no_proxy().build();
    Client { runtime, http: http.unwrap() }
});

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The content type; empty where there is none.
    pub(crate) content_type: String,
    /// The body.
    pub(crate) text: String,
}

impl Reply {
    /// Checks the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// The body, which must be JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Sends a request; an error where no answer came.
pub(crate) fn try_send(method: Method, url: &str, body: Option<Vec<u8>>) -> Result<Reply, reqwest::Error> {
    CLIENT.runtime.block_on(async {
        let mut request = CLIENT.http.request(method, url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await?;
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        Ok(Reply { status: response.status().as_u16(), content_type, text: response.text().await? })
    })
}

/// Sends a request, which must be answered.
#[track_caller]
pub(crate) fn send(method: Method, url: &str, body: Option<Vec<u8>>) -> Reply {
    try_send(method, url, body).unwrap_or_else(|error| panic!("{url}: {error:?}"))
}

/// `GET`
#[track_caller]
pub(crate) fn get(url: &str) -> Reply {
    send(Method::GET, url, None)
}

/// `POST` of JSON.
#[track_caller]
pub(crate) fn post(url: &str, body: &Value) -> Reply {
    send(Method::POST, url, Some(body.to_string().into_bytes()))
}

/// `PUT` of JSON.
#[track_caller]
pub(crate) fn put(url: &str, body: &Value) -> Reply {
    send(Method::PUT, url, Some(body.to_string().into_bytes()))
}
