//! `exec`: programs that the node's configuration allows, by name.
//!
//! The effect is `{"program": name, "args": [...], "input": any}`; the program gets `input` (the payload when absent) as
//! JSON on standard input, and the task's identity in its environment, which is otherwise empty but for PATH and what the
//! configuration adds. Exit code 0 is success, its standard output the response (JSON when it parses, else text); anything
//! else is a failure with the end of standard error. It runs in a process group of its own, which is killed when the
//! attempt ends, however it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{Effect, Failure};

/// Output beyond this many bytes is read and dropped.
const MOST_OUTPUT: u64 = 1024 * 1024;
const ERROR_TAIL: usize = 4096;

/// A program that tasks may run.
#[derive(Debug, Clone)]
pub struct Program {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments before those of the effect.
    pub args: Vec<String>,
    /// Its environment, beside PATH and ROWBEAT_*.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub working_dir: Option<PathBuf>,
}

/// The allow-listed programs of this node.
#[derive(Clone, Default)]
pub struct Programs {
    programs: Arc<BTreeMap<String, Program>>,
}

#[derive(Deserialize)]
struct Spec {
    program: String,
    #[serde(default)]
    args: Vec<String>,
    input: Option<Value>,
}

/// Kills the process group when dropped: the program and whatever it started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Already gone is what we want.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Programs {
    /// These programs and no others.
    pub fn new(programs: BTreeMap<String, Program>) -> Self {
        Self { programs: Arc::new(programs) }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.programs.contains_key(name)
    }

    pub(crate) async fn perform(&self, effect: Effect) -> Result<Value, Failure> {
        let spec: Spec = serde_json::from_value(effect.spec.clone()).map_err(|error| {
            Failure::reject(format!("effect is not {{\"program\", \"args\", \"input\"}}: {error}"))
        })?;
        let Some(program) = self.programs.get(&spec.program) else {
            return Err(Failure::retry(format!("program {} is not in this node's [programs]", spec.program)));
        };
        run(program, &spec, &effect)
            .await
            .map_err(|error| Failure::retry(format!("{}: {error}", spec.program)))?
    }
}

async fn run(program: &Program, spec: &Spec, effect: &Effect) -> std::io::Result<Result<Value, Failure>> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.args)
        .args(&spec.args)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(&program.env)
        .env("ROWBEAT_TASK_ID", effect.task.id.to_string())
        .env("ROWBEAT_ATTEMPT", effect.task.attempt.to_string())
        .env("ROWBEAT_DEFINITION", &effect.task.definition)
        .env("ROWBEAT_IDEMPOTENCY_KEY", effect.idempotency_key())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(folder) = &program.working_dir {
        command.current_dir(folder);
    }
    let mut child = command.spawn()?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let input = spec.input.as_ref().unwrap_or(&effect.task.payload).to_string();
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input is not at fault.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ((), output, errors, status) = tokio::join!(feed, read(stdout), read(stderr), child.wait());
    drop(group);
    let (output, errors, status) = (output?, errors?, status?);
    if status.success() {
        let text = String::from_utf8_lossy(&output);
        return Ok(Ok(serde_json::from_str(&text).unwrap_or_else(|_| json!(text.trim_end()))));
    }
    let errors = String::from_utf8_lossy(&errors[errors.len().saturating_sub(ERROR_TAIL)..]).into_owned();
    let error =
        json!({ "message": format!("{} ended with {status}", spec.program), "stderr": errors.trim_end() });
    Ok(Err(Failure::Retry { error, after: None }))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(MOST_OUTPUT).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}
