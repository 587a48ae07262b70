//! libpq's password file (`~/.pgpass`) and its service file (`pg_service.conf`).
//!
//! Both are read with libpq's rules: the password file only when nobody else can read it, the services of the user before
//! those of the system.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::secret::Secret;

/// The lines of a password file, once it has been found safe to use.
#[derive(Debug, Default)]
pub(crate) struct PassFile {
    lines: Vec<[String; 4]>,
    passwords: Vec<Secret>,
}

impl PassFile {
    /// Reads a password file; an absent one is empty. The error says why the file is not used.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let Ok(about) = std::fs::metadata(path) else { return Ok(Self::default()) };
        if !about.is_file() {
            return Err(format!("{} is not a plain file and is not used", path.display()));
        }
        if about.permissions().mode() & 0o077 != 0 {
            return Err(format!(
                "{} can be read by others and is not used; chmod 0600 makes it safe",
                path.display()
            ));
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut file = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = split_escaped(line).into_iter();
            if let (Some(host), Some(port), Some(database), Some(user), Some(password)) =
                (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
            {
                file.lines.push([host, port, database, user]);
                file.passwords.push(Secret::new(password));
            }
        }
        Ok(file)
    }

    /// The password of the first line that fits. A unix socket is called `localhost` there, or by its folder.
    pub(crate) fn password(&self, host: &str, port: u16, database: &str, user: &str) -> Option<Secret> {
        let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        let at = self.lines.iter().position(|[line_host, line_port, line_database, line_user]| {
            (fits(line_host, host) || (host.starts_with('/') && line_host == "localhost"))
                && fits(line_port, &port.to_string())
                && fits(line_database, database)
                && fits(line_user, user)
        })?;
        self.passwords.get(at).cloned()
    }
}

/// Fields between colons; a backslash takes the next character as it is.
fn split_escaped(line: &str) -> Vec<String> {
    let mut fields = Vec::with_capacity(5);
    let mut field = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            // The password is the last field: a colon in it needs no escape.
            ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
            '\\' => field.extend(characters.next()),
            plain => field.push(plain),
        }
    }
    fields.push(field);
    fields
}

/// The parameters of a service, and the file that has them.
pub(crate) fn find_service(
    service: &str,
    named_file: Option<&str>,
    environment: &Environment,
) -> Result<(Vec<(String, String)>, PathBuf), String> {
    let mut files = Vec::new();
    match (named_file, environment.home()) {
        (Some(file), _) => files.push(PathBuf::from(file)),
        (None, Some(home)) => files.push(home.join(".pg_service.conf")),
        (None, None) => {}
    }
    let system_folders = match environment.get("PGSYSCONFDIR") {
        Some(folder) => vec![folder],
        None => vec!["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc"],
    };
    files.extend(system_folders.into_iter().map(|folder| Path::new(folder).join("pg_service.conf")));
    for file in &files {
        if let Ok(text) = std::fs::read_to_string(file)
            && let Some(pairs) = section(&text, service)
        {
            return Ok((pairs, file.clone()));
        }
    }
    let looked = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(format!("there is no service \"{service}\" in {looked}"))
}

fn section(text: &str, service: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Vec::new);
        } else if let (Some(pairs), Some((name, value))) = (found.as_mut(), line.split_once('=')) {
            pairs.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fitting_line_gives_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "# note\ndb1:5432:shop:u:one\n*:*:*:u:t\\:wo:x\nlocalhost:*:*:*:sock\n")
            .unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let file = PassFile::read(&path).unwrap();
        let password =
            |host, port, user| file.password(host, port, "shop", user).map(|p| p.reveal().to_owned());
        assert_eq!(password("db1", 5432, "u").as_deref(), Some("one"));
        assert_eq!(password("db2", 5432, "u").as_deref(), Some("t:wo:x"));
        assert_eq!(password("/tmp", 5432, "v").as_deref(), Some("sock"));
        assert_eq!(password("db1", 5432, "v"), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:x\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(PassFile::read(&path).unwrap_err().contains("chmod 0600"));
        assert!(PassFile::read(&folder.path().join("absent")).unwrap().lines.is_empty());
    }

    #[test]
    fn a_service_is_one_section_of_the_file() {
        let text = "[a]\nhost=x\n[b]\n# note\nhost = y\nport=1\n[c]\nhost=z\n";
        let pairs = section(text, "b").unwrap();
        assert_eq!(pairs, [("host".to_owned(), "y".to_owned()), ("port".to_owned(), "1".to_owned())]);
        assert_eq!(section(text, "d"), None);
    }
}
