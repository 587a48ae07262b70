//! The value of a command's argument: as given, asked for, read from a file, or, of passwords, only
//! their hash, also of those that are made here.

use std::io::{IsTerminal, Read, Write};

use argon2::password_hash::{PasswordHasher, SaltString};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value, json};

use super::exit::Exit;
use super::failure::Failure;
use super::token::secret;
use crate::plugin::manifest::Field;

/// Reads an argument; `texts` is what was given for it. A password that is made here is told to `generated`, and to nobody else.
pub(super) fn read(
    field: &Field,
    texts: &[&str],
    generated: &mut Map<String, Value>,
) -> Result<Value, Failure> {
    let wrong = |problem: String| Failure::new(format!("{}: {problem}", field.name)).exit(Exit::Usage);
    let asked = match &field.prompt {
        Some(prompt) if texts.is_empty() && field.default.is_none() => ask(prompt, field.kind == "password")?,
        _ => None,
    };
    let texts: Vec<&str> =
        if texts.is_empty() { asked.as_deref().into_iter().collect() } else { texts.to_vec() };
    match (field.kind.as_str(), texts.as_slice()) {
        ("password", []) if field.generate => {
            let password = secret::<18>()?;
            let hash = hash(&password)?;
            generated.insert(field.name.clone(), password.into());
            Ok(hash.into())
        }
        ("password" | "file", []) => field.absent().map_err(wrong),
        ("password", [.., password]) => Ok(Value::from(hash(password)?)),
        ("file", many) if field.list => many.iter().map(|path| file(field, path)).collect(),
        ("file", [.., path]) => file(field, path),
        _ => field.read_texts(&texts).map_err(wrong),
    }
}

/// Asks on standard error and reads a line; none at the end of the input or for an empty line.
fn ask(prompt: &str, secret: bool) -> Result<Option<String>, Failure> {
    let input = std::io::stdin();
    let _ = write!(std::io::stderr(), "{prompt}").and_then(|()| std::io::stderr().flush());
    let echo = if secret && input.is_terminal() { tcgetattr(&input).ok() } else { None };
    if let Some(before) = &echo {
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&input, SetArg::TCSAFLUSH, &silent).map_err(std::io::Error::from)?;
    }
    let mut line = String::new();
    let read = input.read_line(&mut line);
    if let Some(before) = &echo {
        let _ = tcsetattr(&input, SetArg::TCSAFLUSH, before);
        let _ = writeln!(std::io::stderr());
    }
    if read? == 0 {
        let _ = writeln!(std::io::stderr());
    }
    let line = line.trim_end_matches(['\n', '\r']);
    Ok(Some(line.to_owned()).filter(|line| !line.is_empty()))
}

/// An argon2id hash in the usual form; the password itself goes nowhere.
fn hash(password: &str) -> Result<String, Failure> {
    let failed = |error: String| Failure::new(format!("the password cannot be hashed: {error}"));
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|error| failed(error.to_string()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| failed(error.to_string()))?;
    let hash = argon2::Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hash.map_err(|error| failed(error.to_string()))?.to_string())
}

/// A file as `{"filename", "size", "content"}`; the content is text.
fn file(field: &Field, path: &str) -> Result<Value, Failure> {
    let wrong = |problem: String| Failure::new(format!("{}: {path}: {problem}", field.name));
    let mut bytes = Vec::new();
    let most = field.rules.get("max_length").and_then(Value::as_u64).unwrap_or(64 * 1024 * 1024);
    let source: Result<Box<dyn Read>, std::io::Error> = match path {
        "-" => Ok(Box::new(std::io::stdin())),
        path => std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let read = source.and_then(|source| source.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(wrong(format!("is longer than {most} bytes")));
    }
    let size = bytes.len();
    let content = String::from_utf8(bytes).map_err(|_| wrong("is no text in UTF-8".to_owned()))?;
    let name = std::path::Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(json!({ "filename": name, "size": size, "content": content }))
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHash, PasswordVerifier};

    use super::*;

    #[test]
    fn a_password_becomes_a_hash_that_verifies_and_never_the_same() {
        let (one, other) = (hash("p").unwrap(), hash("p").unwrap());
        assert!(one.starts_with("$argon2id$v=19$"), "{one}");
        assert_ne!(one, other);
        let parsed = PasswordHash::new(&one).unwrap();
        assert!(argon2::Argon2::default().verify_password(b"p", &parsed).is_ok());
    }
}
