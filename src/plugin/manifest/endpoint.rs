//! `[[endpoint]]`: a method and a path for one function, with typed input.

use serde::{Deserialize, Serialize};

use super::field::{self, Field, Role};
use super::tree::{Node, Section};
use crate::plugin::problem::Problem;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const AUTHS: [&str; 3] = ["operator", "token", "none"];
/// Paths that are the daemon's own.
const RESERVED: [&str; 7] = ["", "live", "ready", "health", "status", "metrics", "rowbeat"];
/// The same below /api; one that ends in _ stands for all that begin so.
const RESERVED_API: [&str; 4] = ["openapi.json", "active_triggers", "system_health", "plugin_"];
/// Longest body, unless the manifest says otherwise, and at most.
const BODY: i64 = 1024 * 1024;
const LARGEST_BODY: i64 = 64 * 1024 * 1024;

/// What is called for a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// GET, POST, PUT, PATCH or DELETE.
    pub method: String,
    /// With `{parameters}`.
    pub path: String,
    /// With `{}` for each of them.
    pub shape: String,
    /// operator, token or none.
    pub auth: String,
    /// `f(request jsonb)`, or `f(request jsonb, files bytea[])` when it takes files.
    pub function: String,
    /// Its fields.
    pub input: Vec<Field>,
    /// Cookies that the function gets to see.
    pub cookies: Vec<String>,
    /// Longest body.
    pub max_body_bytes: i64,
    /// Template of html answers that name none.
    pub template: Option<String>,
    /// For people.
    pub description: String,
    /// Where it stands.
    #[serde(skip)]
    pub line: usize,
}

impl Endpoint {
    /// How problems call it.
    pub fn at(&self) -> String {
        format!("[[endpoint]] {} {}", self.method, self.path)
    }

    /// Whether it takes files.
    pub fn takes_files(&self) -> bool {
        self.input.iter().any(|field| field.kind == "file")
    }

    fn read(mut section: Section<'_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let (method, path) = (section.needed("method", problems), section.needed("path", problems));
        let (method, path) = (method?, path?);
        section.name = format!("[[endpoint]] {method} {path}");
        let mut endpoint = Self {
            shape: shape(&path),
            auth: section.needed("auth", problems).unwrap_or_default(),
            function: section.needed("function", problems).unwrap_or_default(),
            input: fields(section.take("input"), &format!("{} input", section.name), Role::Input, problems),
            cookies: section.texts("cookies", problems),
            max_body_bytes: section.integer("max_body_bytes", problems).unwrap_or(BODY),
            template: section.text("template", problems),
            description: section.text("description", problems).unwrap_or_default(),
            line: section.line,
            method,
            path,
        };
        let known = [
            "method",
            "path",
            "auth",
            "function",
            "input",
            "cookies",
            "max_body_bytes",
            "template",
            "description",
        ];
        section.finish(&known, problems);
        endpoint.check(problems);
        Some(endpoint)
    }

    fn check(&mut self, problems: &mut Vec<Problem>) {
        let (line, at) = (self.line, self.at());
        let mut complain =
            |key: &str, message: String| problems.push(Problem::of_key(line, format!("{at} {key}"), message));
        if !METHODS.contains(&self.method.as_str()) {
            complain("method", format!("the methods are {}", METHODS.join(", ")));
        }
        if !self.auth.is_empty() && !AUTHS.contains(&self.auth.as_str()) {
            complain("auth", format!("one of {} is needed here", AUTHS.join(", ")));
        }
        if !(1..=LARGEST_BODY).contains(&self.max_body_bytes) {
            complain("max_body_bytes", format!("from 1 to {LARGEST_BODY}"));
        }
        let parameters = match parameters(&self.path) {
            Ok(parameters) => parameters,
            Err(problem) => return complain("path", problem),
        };
        for field in self.input.iter().filter(|field| field.place.as_deref() == Some("path")) {
            if !parameters.contains(&field.name.as_str()) {
                complain(&format!("input {}", field.name), format!("the path has no {{{}}}", field.name));
            }
        }
        let has = |place: &str| self.input.iter().any(|field| field.place.as_deref() == Some(place));
        if has("json") && (has("form") || has("file")) {
            complain("input", "a body is json, or a form with files, not both".to_owned());
        }
        if has("body") && (has("json") || has("form") || has("file")) {
            complain("input", "the whole body is taken as it is, or it is read, not both".to_owned());
        }
        if self.method == "GET" && ["json", "form", "file", "body"].into_iter().any(has) {
            complain("input", "a GET has no body".to_owned());
        }
        let undeclared: Vec<Field> = parameters
            .iter()
            .filter(|name| !self.input.iter().any(|field| field.name == **name))
            .map(|name| field::of_path(name))
            .collect();
        self.input.splice(0..0, undeclared);
    }
}

/// All endpoints of the manifest.
pub(super) fn read(manifest: &mut Section<'_>, problems: &mut Vec<Problem>) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for section in manifest.tables("endpoint", problems) {
        let Some(endpoint) = Endpoint::read(section, problems) else { continue };
        if let Some(other) =
            endpoints.iter().find(|o| o.method == endpoint.method && o.shape == endpoint.shape)
        {
            let message = format!("the same requests belong to line {} already", other.line);
            problems.push(Problem::of_key(endpoint.line, endpoint.at(), message));
        }
        endpoints.push(endpoint);
    }
    endpoints
}

/// The fields of a table, in the order they are written.
pub(super) fn fields(node: Option<&Node>, name: &str, role: Role, problems: &mut Vec<Problem>) -> Vec<Field> {
    let Some(mut section) = node.and_then(|node| Section::new(name, node, problems)) else {
        return Vec::new();
    };
    let entries = section.rest();
    entries
        .into_iter()
        .filter_map(|(field, node)| {
            let inner = Section::new(&format!("{name} {field}"), node, problems)?;
            Some(Field::read(field, inner, role, problems))
        })
        .collect()
}

/// The path with `{}` for every parameter; a slash at the end makes no difference.
fn shape(path: &str) -> String {
    let parts = path.trim_end_matches('/').split('/');
    parts.map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

fn parameters(path: &str) -> Result<Vec<&str>, String> {
    let Some(rest) = path.strip_prefix('/') else { return Err("a path begins with /".to_owned()) };
    let parts: Vec<&str> = rest.strip_suffix('/').unwrap_or(rest).split('/').collect();
    if RESERVED.contains(&parts[0]) {
        return Err(format!("/{} is the daemon's own", parts[0]));
    }
    if let ("api", Some(second)) = (parts[0], parts.get(1))
        && RESERVED_API.iter().any(|own| second == own || (own.ends_with('_') && second.starts_with(own)))
    {
        return Err(format!("/api/{second} is the daemon's own"));
    }
    let mut parameters = Vec::new();
    for part in parts {
        let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let text = name.unwrap_or(part);
        if text.is_empty()
            || !text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.~".contains(c))
            || text.starts_with('.')
        {
            return Err(format!(
                "{part:?} is no part of a path: letters, digits, _ - . ~, or one {{parameter}}"
            ));
        }
        if let Some(name) = name {
            if parameters.contains(&name) {
                return Err(format!("{{{name}}} stands twice"));
            }
            parameters.push(name);
        }
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_s_own_paths_cannot_be_declared() {
        for path in
            ["/", "/metrics", "/status/x", "/api/openapi.json", "/api/plugin_x/y", "/api/active_triggers/"]
        {
            assert!(parameters(path).is_err(), "{path}");
        }
        assert_eq!(parameters("/api/plug/{id}/"), Ok(vec!["id"]));
        assert_eq!(parameters("/api/openapi.json/{id}").ok(), None);
        assert_eq!(parameters("/{page}"), Ok(vec!["page"]));
    }
}
