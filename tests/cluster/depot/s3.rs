//! A server that speaks S3: the one that `TURRET_S3` names, or one of the test's own.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use tempfile::TempDir;

use crate::client::try_send;
use crate::process::{Environment, wait_until};

/// For moto to come up; it is Python.
const START_TIME: Duration = Duration::from_secs(60);
/// Its command.
const MOTO: &str = "moto_server";

/// An S3 server that tests may write to.
pub(super) struct Server {
    url: String,
    environment: Vec<(&'static str, String)>,
    // Ended, and its log removed, when dropped.
    _own: Option<(Ended, TempDir)>,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Server {
    /// The bucket and prefix that `TURRET_S3` names, with credentials in the environment; else moto's server, where it is
    /// installed. Where there is neither this says so.
    pub(super) fn find() -> Option<Self> {
        if let Ok(url) = std::env::var("TURRET_S3") {
            return Some(Self { url: format!("{url}/{}", unique()), environment: Vec::new(), _own: None });
        }
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago; another process that takes it meanwhile ends this test by its time limit.
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let Some(own) = moto(port, dir.path()) else {
            eprintln!("skipped: TURRET_S3 is not set, and {MOTO} is not installed");
            return None;
        };
        let endpoint = format!("http://127.0.0.1:{port}");
        // Making a bucket is asked of moto without a signature, which it does not check.
        let made = || try_send(Method::PUT, &format!("{endpoint}/ads"), None).ok().filter(|reply| reply.status == 200);
        wait_until("moto makes a bucket", START_TIME, made);
        let environment = environment(&endpoint).to_vec();
        Some(Self { url: format!("s3://ads/{}", unique()), environment, _own: Some((own, dir)) })
    }

    /// A prefix of this test alone.
    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// Where it is, and who asks.
    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// What the program must find in its environment to reach a server on loopback.
pub(super) fn environment(endpoint: &str) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "of-a-test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "no-secret".to_owned()),
    ]
}

/// Starts moto's server; none where it is not installed.
fn moto(port: u16, dir: &Path) -> Option<Ended> {
    let log = || File::options().create(true).append(true).open(dir.join("moto.log")).unwrap();
    let mut command = Command::new(MOTO);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdin(Stdio::null()).stdout(log()).stderr(log());
    command.spawn().ok().map(Ended)
}

/// A name that no other run takes.
fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("turret-{}-{}", now.as_millis(), std::process::id())
}
