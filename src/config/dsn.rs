//! Connection strings in both of libpq's forms: `postgres://…` and `key=value …`.
//!
//! Gives the parameters as written; what they mean, and which are known, is decided elsewhere. Errors never quote the string,
//! for it may hold a password.

/// A parameter of a connection string: its name and its value.
pub(crate) type Parameter = (String, String);

/// Reads a connection string into its parameters, in order; a URL's host list becomes `host` and `port`.
pub(crate) fn parse_dsn(text: &str) -> Result<Vec<Parameter>, String> {
    let text = text.trim();
    match text.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => parse_url(rest),
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
            Err(format!("the scheme {scheme}:// is not known, a URL begins with postgres://"))
        }
        _ => parse_pairs(text),
    }
}

fn parse_url(rest: &str) -> Result<Vec<Parameter>, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (account, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut parameters = Vec::new();
    let mut add = |name: &str, value: &str| -> Result<(), String> {
        if !value.is_empty() {
            parameters.push((name.to_owned(), decode(value).ok_or_else(|| bad_escape(name))?));
        }
        Ok(())
    };

    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    add("user", user)?;
    add("password", password)?;
    let (names, ports) = split_hosts(hosts)?;
    add("host", &names)?;
    add("port", &ports)?;
    add("dbname", database)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or("a parameter after the ? of the URL has no = and no value")?;
        match (name, value) {
            ("ssl", "true") => add("sslmode", "require")?,
            _ => add(&decode(name).ok_or_else(|| bad_escape(name))?, value)?,
        }
    }
    Ok(parameters)
}

/// `a:1,b,[::1]:3` as the lists `a,b,::1` and `1,,3`.
fn split_hosts(hosts: &str) -> Result<(String, String), String> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(literal) => {
                let (name, rest) = literal.split_once(']').ok_or("an IPv6 address in the URL lacks its ]")?;
                (name, rest.strip_prefix(':').unwrap_or(rest))
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    let join = |list: Vec<&str>| {
        if list.iter().all(|item| item.is_empty()) { String::new() } else { list.join(",") }
    };
    Ok((join(names), join(ports)))
}

fn bad_escape(name: &str) -> String {
    format!("the value of {name} in the URL has a broken % escape; write a literal % as %25")
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let digits = [*rest.next()?, *rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn parse_pairs(text: &str) -> Result<Vec<Parameter>, String> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) =
            rest.split_once('=').ok_or("it is neither a postgres:// URL nor a list of key=value pairs")?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(
                "a value has no key before its =, or a key no =; a value with spaces needs 'quotes'".into()
            );
        }
        let (value, after) =
            pair_value(after.trim_start()).ok_or_else(|| format!("the quote of {name} is not closed"))?;
        parameters.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// One value, quoted or plain, with backslash escapes; and what follows it.
fn pair_value(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let body = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted.is_some() => return Some((value, &body[at + 1..])),
            space if quoted.is_none() && space.is_whitespace() => return Some((value, &body[at..])),
            plain => value.push(plain),
        }
    }
    if quoted.is_some() { None } else { Some((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        let pairs = parse_dsn(text).unwrap();
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn urls_give_their_parts() {
        assert_eq!(
            parsed("postgres://u:p%40ss@db1:5433,db2,[::1]:5434/shop?sslmode=verify-full"),
            "user=u password=p@ss host=db1,db2,::1 port=5433,,5434 dbname=shop sslmode=verify-full"
        );
        assert_eq!(parsed("postgresql://%2Fvar%2Frun/shop"), "host=/var/run dbname=shop");
        assert_eq!(parsed("postgresql:///shop?host=/tmp&ssl=true"), "dbname=shop host=/tmp sslmode=require");
        assert_eq!(parsed("postgres://"), "");
    }

    #[test]
    fn pairs_give_their_values() {
        assert_eq!(parsed(r"host = a  password='x \'y\\' user=b\ c"), r"host=a password=x 'y\ user=b c");
        assert_eq!(parsed("options='' host=a"), "options= host=a");
    }

    #[test]
    fn errors_never_show_the_string() {
        for text in
            ["secret", "mysql://u:secret@h/d", "password='secret", "postgres://u:secret%zz@h/d", "a b=secret"]
        {
            let error = parse_dsn(text).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
