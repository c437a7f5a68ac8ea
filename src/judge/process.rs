//! Runs the programs of judges. The processes of each batch form a process group that is killed when the batch or this
//! program ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::collective::remove_rank_variables;

/// How long a program may keep running after it has printed all answers.
const GRACE: Duration = Duration::from_secs(2);
/// How long to keep reading the pipes of a program that has exited: a child process may still hold them open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The interval between checks whether the program has exited.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// How a program ended.
pub(super) enum End {
    /// It exited by itself.
    Exited(ExitStatus),
    /// It was killed while running; `complete` says whether it had printed all answers.
    Killed {
        /// Whether the reader had all the lines that it needs.
        complete: bool,
    },
    /// Its output exceeded the limit.
    TooMuch,
    /// It could not be started, or its output could not be read.
    Broken(std::io::Error),
}

/// One invocation of a program.
pub(super) struct Call<'a> {
    /// The command line, for the shell.
    pub command: &'a str,
    /// The data for its standard input.
    pub input: Vec<u8>,
    /// Limit on its output in bytes.
    pub limit: usize,
    /// Limit on its run time.
    pub timeout: Duration,
}

/// A piece of the program's output.
enum Output {
    Line(Vec<u8>),
    TooMuch,
    Broken(std::io::Error),
}

impl Call<'_> {
    /// Runs the program. `read` receives each line of its output and returns true once it needs no more lines; the
    /// program then has two seconds to exit. Returns how the program ended and the last line of its standard error. All
    /// processes that it started are killed.
    pub fn run(self, mut read: impl FnMut(&[u8]) -> bool) -> (End, String) {
        let deadline = Instant::now() + self.timeout;
        let started = Group::new().and_then(|group| Ok((group.spawn(self.command)?, group)));
        let (mut child, group) = match started {
            Ok(started) => started,
            Err(e) => return (End::Broken(e), String::new()),
        };
        // One thread per pipe, so that no pipe fills up while another is read.
        let (mut stdin, input) = (child.stdin.take().expect("piped"), self.input);
        // A program that answers before it has read everything closes the pipe; only its output counts.
        thread::spawn(move || drop(stdin.write_all(&input)));
        let lines = lines(child.stdout.take().expect("piped"), self.limit);
        let stderr = last_line(child.stderr.take().expect("piped"));

        let end = read_until(deadline, &mut child, &lines, &mut read);
        drop(group);
        // The program may have left the group.
        let _ = child.kill();
        let _ = child.wait();
        (end, stderr.recv_timeout(LAST_WORDS).unwrap_or_default())
    }
}

/// Reads lines until the program and its output have ended, or until it must be killed.
fn read_until(
    deadline: Instant,
    child: &mut Child,
    lines: &Receiver<Output>,
    read: &mut impl FnMut(&[u8]) -> bool,
) -> End {
    let (mut complete, mut until, mut exited) = (false, deadline, None);
    loop {
        let now = Instant::now();
        if now >= until {
            return exited.map_or(End::Killed { complete }, End::Exited);
        }
        match lines.recv_timeout(CHECK_INTERVAL.min(until - now)) {
            Ok(Output::Line(line)) => {
                if read(&line) && !complete {
                    complete = true;
                    until = until.min(Instant::now() + GRACE);
                }
            }
            Ok(Output::TooMuch) => return End::TooMuch,
            Ok(Output::Broken(e)) => return End::Broken(e),
            Err(RecvTimeoutError::Timeout) => {}
            // Its output is closed; only its exit code is missing.
            Err(RecvTimeoutError::Disconnected) => match exited {
                Some(status) => return End::Exited(status),
                None => thread::sleep(Duration::from_millis(2)),
            },
        }
        if exited.is_none()
            && let Ok(Some(status)) = child.try_wait()
        {
            exited = Some(status);
            // The rest of its output is still read. A child process may keep running only if answers are missing.
            if complete || !status.success() {
                until = until.min(Instant::now() + LAST_WORDS);
            }
        }
    }
}

/// The lines of `pipe` without line ends, as they arrive. The channel closes with the pipe.
fn lines(pipe: impl Read + Send + 'static, limit: usize) -> Receiver<Output> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe.take(limit as u64 + 1));
        let mut read = 0;
        loop {
            let mut line = Vec::new();
            let output = match pipe.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(bytes) if read + bytes > limit => Output::TooMuch,
                Ok(bytes) => {
                    read += bytes;
                    Output::Line(line.trim_ascii().to_vec())
                }
                Err(e) => Output::Broken(e),
            };
            let last = !matches!(output, Output::Line(_));
            // The receiver is gone after a timeout.
            if send.send(output).is_err() || last {
                return;
            }
        }
    });
    receive
}

/// The last non-blank line of `pipe`, or the end of it if it is long, sent once the pipe is closed.
fn last_line(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    const KEPT: usize = 2048;
    let (send, receive) = channel();
    thread::spawn(move || {
        let (mut tail, mut chunk) = (Vec::new(), [0; KEPT]);
        while let Ok(n @ 1..) = pipe.read(&mut chunk) {
            tail.extend(&chunk[..n]);
            tail.drain(..tail.len().saturating_sub(KEPT));
        }
        let text = String::from_utf8_lossy(&tail);
        let last = text.trim_end().lines().next_back().unwrap_or_default().trim().to_owned();
        let _ = send.send(last);
    });
    receive
}

/// A separate process group, so that the processes started by the shell can be killed as well, and Ctrl-C, which lets
/// the current step finish, does not reach them. Its leader waits on a pipe for the end of this program, however it
/// ends, and then kills the group. Dropping it kills the group.
#[cfg(unix)]
struct Group {
    leader: Child,
}

#[cfg(unix)]
impl Group {
    fn new() -> std::io::Result<Group> {
        use std::os::unix::process::CommandExt;
        let mut leader = Command::new("sh");
        leader.args(["-c", "read _; kill -s KILL 0"]).process_group(0);
        let leader = leader.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Group { leader })
    }

    /// Runs a command line in the group.
    fn spawn(&self, command: &str) -> std::io::Result<Child> {
        use std::os::unix::process::CommandExt;
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).process_group(self.leader.id() as i32);
        remove_rank_variables(&mut shell);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        // The leader has not been waited for, so its process id cannot have been reused.
        if let Some(group) = Pid::from_raw(self.leader.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.leader.wait();
    }
}

/// Without process groups: the shell and its descendants.
#[cfg(not(unix))]
struct Group {
    shell: std::cell::Cell<u32>,
}

#[cfg(not(unix))]
impl Group {
    fn new() -> std::io::Result<Group> {
        Ok(Group { shell: std::cell::Cell::new(0) })
    }

    fn spawn(&self, command: &str) -> std::io::Result<Child> {
        #[cfg(windows)]
        let mut shell = {
            use std::os::windows::process::CommandExt;
            let mut shell = Command::new("cmd");
            shell.raw_arg(format!("/S /C \"{command}\""));
            shell
        };
        #[cfg(not(windows))]
        let mut shell = Command::new(command);
        remove_rank_variables(&mut shell);
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        self.shell.set(child.id());
        Ok(child)
    }
}

#[cfg(not(unix))]
impl Drop for Group {
    fn drop(&mut self) {
        let mut kill = Command::new("taskkill");
        kill.args(["/F", "/T", "/PID", &self.shell.get().to_string()]);
        // A process that has just exited needs no kill.
        let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
