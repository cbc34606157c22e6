//! Processes of the program under test. Whatever becomes of a test, none outlives it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// For a command that ends by itself.
const COMMAND_TIME: Duration = Duration::from_secs(120);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `condition` gives something, and fails the test when it has not after `within`.
pub(crate) fn wait_until<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Signals that tests send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What a service manager sends.
    Terminate,
    /// Stops a process where it stands; its sockets stay open.
    Stop,
    /// Lets it go on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// What a process finds in its environment beside what the test has.
pub(crate) type Environment = [(&'static str, String)];

/// A running `turret`, killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `turret` with `arguments`; what it prints goes to `<name>.out` and, appended, to `<name>.log` in `dir`.
    pub(crate) fn start(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::start_in(dir, name, arguments, &[])
    }

    /// The same, in an environment with more in it.
    pub(crate) fn start_in(dir: &Path, name: &str, arguments: &[&str], environment: &Environment) -> Self {
        let stdout = dir.join(format!("{name}.out"));
        let stderr = dir.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&stderr).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_turret"))
            .args(arguments)
            .env_remove("RUST_LOG")
            .env_remove("TURRET_DATA")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(log)
            .spawn()
            .expect("the program was built for this test");
        Self { child, stdout, stderr }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to standard output.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it, and those of its name before it, have printed to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("process {} ends; its log:\n{}", self.id(), self.log());
        wait_until(&what, within, || self.ended())
    }

    /// Sends a signal. By the shell's own `kill`, which every machine has and which needs no unsafe code.
    pub(crate) fn signal(&self, signal: Signal) {
        let script = format!("kill -s {} {}", signal.name(), self.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("there is a shell");
        assert!(sent.success(), "{script}");
    }

    /// Kills it and waits until it is gone: from then on its ports are closed.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself. A stopped process dies of this signal too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) output: String,
    /// Standard error.
    pub(crate) errors: String,
}

impl Finished {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Checks that standard error is one clear error: every one of `parts` is in it, and no panic.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) {
        let told = self.errors.lines().filter(|line| line.starts_with("turret: ")).count();
        assert_eq!(told, 1, "one error is told: {self:#?}");
        assert!(!self.errors.contains("panicked"), "{self:#?}");
        for part in parts {
            assert!(self.errors.contains(part), "`{part}` is not in {self:#?}");
        }
    }
}

/// Runs `turret` with `arguments` to its end.
pub(crate) fn turret(arguments: &[&str]) -> Finished {
    turret_in(arguments, &[])
}

/// The same, in an environment with more in it.
pub(crate) fn turret_in(arguments: &[&str], environment: &Environment) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start_in(dir.path(), "turret", arguments, environment);
    let status = process.wait(COMMAND_TIME);
    Finished { code: status.code(), output: process.output(), errors: process.log() }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
