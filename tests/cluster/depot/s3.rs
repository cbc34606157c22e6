//! A server that speaks S3: the one that `TURRET_S3` names, or one of the test's own.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use tempfile::TempDir;

use crate::client::try_send;
use crate::process::{Environment, wait_until};

/// For a server to come up.
const START_TIME: Duration = Duration::from_secs(60);
/// A server of S3 below a directory, which checks signatures.
const RCLONE: &str = "rclone";
const KEY: &str = "of-a-test";
const SECRET: &str = "no-secret";
/// A directory is a bucket.
const BUCKET: &str = "ads";

/// An S3 server that tests may write to.
pub(super) struct Server {
    url: String,
    environment: Vec<(&'static str, String)>,
    // Ended, and its log removed, when dropped.
    own: Option<(Ended, TempDir)>,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Server {
    /// The bucket and prefix that `TURRET_S3` names, with credentials in the environment; else a server of rclone's, where it is
    /// installed. Where there is neither this says so.
    pub(super) fn find() -> Option<Self> {
        if let Ok(url) = std::env::var("TURRET_S3") {
            return Some(Self { url: format!("{url}/{}", unique()), environment: Vec::new(), own: None });
        }
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago; another process that takes it meanwhile ends this test by its time limit.
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let Some(own) = rclone(&address.to_string(), dir.path()) else {
            eprintln!("skipped: TURRET_S3 is not set, and {RCLONE} is not installed");
            return None;
        };
        let endpoint = format!("http://{address}");
        // Whatever it says to one who does not sign.
        wait_until("rclone answers", START_TIME, || try_send(Method::GET, &endpoint, None).ok());
        let environment = environment(&endpoint).to_vec();
        Some(Self { url: format!("s3://{BUCKET}/{}", unique()), environment, own: Some((own, dir)) })
    }

    /// The environment of one who may not write, where this is known.
    pub(super) fn with_another_secret(&self) -> Option<Vec<(&'static str, String)>> {
        self.own.as_ref()?;
        let forged = |(name, value): &(&'static str, String)| match *name {
            "AWS_SECRET_ACCESS_KEY" => (*name, "guessed".to_owned()),
            name => (name, value.clone()),
        };
        Some(self.environment.iter().map(forged).collect())
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
        ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
    ]
}

/// Starts rclone's server; none where it is not installed.
fn rclone(address: &str, dir: &Path) -> Option<Ended> {
    let served = dir.join("served");
    fs::create_dir_all(served.join(BUCKET)).unwrap();
    let log = || File::options().create(true).append(true).open(dir.join("rclone.log")).unwrap();
    let mut command = Command::new(RCLONE);
    command.args(["serve", "s3", "--addr", address, "--auth-key", &format!("{KEY},{SECRET}"), "--config", "/dev/null"]);
    command.arg(served).stdin(Stdio::null()).stdout(log()).stderr(log());
    command.spawn().ok().map(Ended)
}

/// A name that no other run takes.
fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("turret-{}-{}", now.as_millis(), std::process::id())
}
