//! `exec`: programs that the node's configuration allows, by name.
//!
//! The effect is `{"program": name, "args": [...], "input": any}`; the program gets `input` (the payload when absent) as
//! JSON on standard input, or what `template` makes of `data`, and the task's identity in its environment, which is otherwise
//! empty but for PATH and what the configuration adds. Exit code 0 is success, its standard output the response (JSON when it
//! parses, else text; with `"output": "base64"` an object with its bytes); anything else is a failure with the end of standard
//! error. It runs in a process group of its own, which is killed when the attempt ends, however it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::template::{self, Escape};
use super::{Effect, Failure};

/// Output beyond this many bytes is read and dropped.
const MOST_OUTPUT: u64 = 1024 * 1024;
/// Bytes that are kept as such; more are a failure, for half a file is none.
const MOST_BYTES: u64 = 8 * 1024 * 1024;
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
    template: Option<Template>,
    data: Option<Value>,
    output: Option<Output>,
}

/// What is written to standard input instead of JSON.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Template {
    Text(String),
    Html(String),
}

/// What standard output is taken for.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Output {
    Base64,
}

impl Spec {
    fn standard_input(&self, payload: &Value) -> Result<String, String> {
        let data = self.data.as_ref().unwrap_or(payload);
        match &self.template {
            None => Ok(self.input.as_ref().unwrap_or(payload).to_string()),
            Some(Template::Text(source)) => template::render("text", source, data, Escape::Nothing),
            Some(Template::Html(source)) => template::render("html", source, data, Escape::Html),
        }
    }
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
            Failure::reject(format!("effect is not {{\"program\", \"args\", \"input\", \"template\", \"data\", \"output\"}}: {error}"))
        })?;
        let Some(program) = self.programs.get(&spec.program) else {
            return Err(Failure::retry(format!("program {} is not in this node's [programs]", spec.program)));
        };
        let input = spec.standard_input(&effect.task.payload).map_err(Failure::reject)?;
        run(program, &spec, input, &effect)
            .await
            .map_err(|error| Failure::retry(format!("{}: {error}", spec.program)))?
    }
}

async fn run(
    program: &Program,
    spec: &Spec,
    input: String,
    effect: &Effect,
) -> std::io::Result<Result<Value, Failure>> {
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
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input is not at fault.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let binary = spec.output == Some(Output::Base64);
    let most = if binary { MOST_BYTES + 1 } else { MOST_OUTPUT };
    let ((), output, errors, status) =
        tokio::join!(feed, read(stdout, most), read(stderr, MOST_OUTPUT), child.wait());
    drop(group);
    let (output, errors, status) = (output?, errors?, status?);
    if status.success() && binary {
        if output.len() as u64 > MOST_BYTES {
            let problem = format!("{}: its output has more than {MOST_BYTES} bytes", spec.program);
            return Ok(Err(Failure::reject(problem)));
        }
        return Ok(Ok(json!({ "base64": STANDARD.encode(&output) })));
    }
    if status.success() {
        let text = String::from_utf8_lossy(&output);
        return Ok(Ok(serde_json::from_str(&text).unwrap_or_else(|_| json!(text.trim_end()))));
    }
    let errors = String::from_utf8_lossy(&errors[errors.len().saturating_sub(ERROR_TAIL)..]).into_owned();
    let error =
        json!({ "message": format!("{} ended with {status}", spec.program), "stderr": errors.trim_end() });
    Ok(Err(Failure::Retry { error, after: None }))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(most).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}
