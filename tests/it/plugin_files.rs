//! What is no plugin is refused before a database hears of it: every problem at once, with file and line.

use std::io::Write;

use rowbeat::plugin::Plugin;
use rowbeat::plugin::bundle::Bundle;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::cli::{bare, finish};
use crate::plugin::Folder;

fn problems(folder: &Folder) -> Vec<String> {
    let found = match Bundle::open(&folder.path()) {
        Err(problems) => problems,
        Ok(bundle) => match Plugin::read(bundle) {
            Err(problems) => problems.0,
            Ok(_) => Vec::new(),
        },
    };
    found.iter().map(ToString::to_string).collect()
}

/// The problems of a zip with these entries: name, content, Unix mode.
fn zipped(entries: &[(&str, &[u8], u32)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.zip");
    let mut writer = ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, content, mode) in entries {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        if mode & 0o170_000 == 0o120_000 {
            writer.add_symlink(*name, std::str::from_utf8(content).unwrap(), options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
    }
    writer.finish().unwrap();
    let found = Bundle::open(&path).err().unwrap_or_default();
    found.iter().map(ToString::to_string).collect()
}

const MANIFEST: &[u8] = b"format = 1\nname = \"x\"\nversion = \"1.0.0\"\n";

#[test]
fn keys_of_a_plugin_s_watch_are_plain_texts() {
    let watch = |key: &str| {
        let manifest = format!(
            "format = 1\nname = \"x\"\nversion = \"1.0.0\"\n[[task]]\nname = \"x.t\"\nexecutor = \"sql\"\nfunction = \"x.t\"\n[[watch]]\nname = \"x.w\"\ntable_name = \"x.t\"\ndefinition = \"x.t\"\nunique_key = \"{key}\"\n"
        );
        problems(&Folder::bare(&manifest))
    };
    assert_eq!(watch("'all'"), [""; 0]);
    for expression in ["new.id", "'a' || rowbeat.purge_plugin('x')::text || 'b'", "'", "'a\\\\'"] {
        assert!(
            watch(expression)[0].contains("is a plain text in single quotes"),
            "{expression}: {:?}",
            watch(expression)
        );
    }
}

#[test]
fn every_problem_of_a_manifest_is_listed_at_once_with_its_line() {
    let folder = Folder::bare(
        r#"format = 1
name = "Shop"
version = "one"
colour = "red"
[requires]
rowbeat = "99.0"
connections = { mail = "pop3" }
[settings]
step = { type = "integer", default = "x", min = "a" }
limit = { type = "text", min = 3, required = true }
[[task]]
name = "a"
executer = "sql"
[[task]]
name = "a"
executor = "http"
effect = { connection = "momo" }
[[schedule]]
name = "s"
definition = "nobody"
[[endpoint]]
method = "FETCH"
path = "/status/{x"
auth = "magic"
[[endpoint]]
method = "GET"
path = "/api/x/{id}"
auth = "none"
function = "shop.x"
[endpoint.input]
body = { in = "json", type = "text" }
upload = { in = "form", type = "file" }
other = { in = "path" }
[[endpoint]]
method = "GET"
path = "/api/x/{key}/"
auth = "none"
function = "shop.x"
template = "no.html"
[[command]]
name = "Do It"
[[command]]
name = "run"
task = "b"
[command.arguments]
json = { type = "password", required = true, default = "x" }
[[command]]
name = "make"
task = "a"
[command.arguments]
size = { type = "integer", generate = true }
password = { type = "password", generate = true, prompt = "Password: " }
fine = { type = "password", generate = true }
[listen]
channels = ["rowbeat"]
none = "Nothing."
[[page]]
path = "/x"
"#,
    )
    .put("migrations/V2__late.sql", "")
    .put("migrations/first.sql", "")
    .put("functions/f.sql", "select 1;\ncommit;")
    .put("templates/t.html", "{% if %}");
    let found = problems(&folder);
    for expected in [
        "plugin.toml line 2, name: a name is a small letter",
        "plugin.toml line 3, version: \"one\" is no version",
        "plugin.toml line 4, colour: there is no such key",
        "plugin.toml line 6, [requires] rowbeat: needs rowbeat 99.0.0 or newer",
        "plugin.toml line 7, [requires] connections mail: the types of connections are",
        "plugin.toml line 9, [settings] step min: \"a\" is no integer",
        "plugin.toml line 9, [settings] step default: \"x\" is no integer",
        "plugin.toml line 10, [settings] limit min: there is no min for type text",
        "[settings] limit required: there is no such key",
        "plugin.toml line 13, [[task]] \"a\" executer: there is no such key; did you mean executor?",
        "plugin.toml line 11, [[task]] \"a\" executor: is missing",
        "plugin.toml line 14, [[task]] \"a\": stands twice, first in line 11",
        "[[task]] \"a\" effect: connection momo is not required",
        "[[schedule]] \"s\" spec: is missing",
        "[[schedule]] \"s\" definition: there is no [[task]] \"nobody\"",
        "[[endpoint]] FETCH /status/{x method: the methods are",
        "[[endpoint]] FETCH /status/{x path: /status is the daemon's own",
        "[[endpoint]] FETCH /status/{x auth: one of operator, token, none",
        "[[endpoint]] FETCH /status/{x function: is missing",
        "input upload type: type file goes with in = \"file\"",
        "input other: the path has no {other}",
        "input: a body is json, or a form with files, not both",
        "input: a GET has no body",
        "[[endpoint]] GET /api/x/{key}/: the same requests belong to line",
        "[[endpoint]] GET /api/x/{key}/ template: there is no templates/no.html",
        "[[command]] \"Do It\" function: a command has a function, a task, or both",
        "[[command]] \"Do It\" name: Do It is no name of a command",
        "[[command]] \"run\" task: there is no [[task]] \"b\"",
        "arguments json: is an option of every command",
        "arguments json default: what is required has no default",
        "arguments size generate: only a password is generated",
        "arguments password generate: only a password is generated, and only one that is not required or asked for",
        "[listen] channels: \"rowbeat\" is no channel of a plugin",
        "[listen] none: there is no such key",
        "[[page]]: pages are reserved for a later format",
        "migrations/first.sql: is misnamed",
        "migrations/V2__late.sql: migrations are numbered from 1 without holes",
        "functions/f.sql line 2: \"commit\" is not allowed",
        "templates/t.html: template templates/t.html, line 1: syntax error",
    ] {
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{expected} is missing in\n{}",
            found.join("\n")
        );
    }
}

#[test]
fn a_newer_format_is_refused_before_anything_else_is_said() {
    let found = problems(&Folder::bare("format = 2\nname = 7\nanything = true\n"));
    assert_eq!(
        found,
        [
            "plugin.toml line 1, format: this rowbeat reads format 1, the plugin has 2: a newer rowbeat is needed"
        ]
    );
    assert!(problems(&Folder::bare("name = \"x\""))[0].contains("write format = 1"));
    let found = problems(&Folder::bare("format = 1\nname = \n[[task]\n"));
    assert!(found.len() >= 2 && found[0].contains("plugin.toml line 2: no TOML"), "{found:?}");
}

#[test]
fn paths_that_lead_out_links_and_unknown_files_are_refused() {
    for (name, mode, refusal) in [
        ("../evil.sql", 0o644, "leads out"),
        ("functions/../../evil.sql", 0o644, "leads out"),
        ("/etc/evil.sql", 0o644, "leads out"),
        ("functions\\evil.sql", 0o644, "leads out"),
        ("c:evil.sql", 0o644, "leads out"),
        ("functions/link.sql", 0o120_777, "is a link"),
        ("functions/.hidden.sql", 0o644, "is no path within a plugin"),
        ("run.sh", 0o755, "is no file of a plugin"),
        ("functions/deep/f.sql", 0o644, "no folders"),
        ("templates/t.exe", 0o644, "templates are"),
        ("functions/F.sql", 0o644, "differs only in capitals"),
    ] {
        let found = zipped(&[
            ("plugin.toml", MANIFEST, 0o644),
            ("functions/f.sql", b"select 1", 0o644),
            (name, b"/etc/passwd", mode),
        ]);
        assert!(found.iter().any(|problem| problem.contains(refusal)), "{name}: {found:?}");
    }
    let folder = Folder::tally();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("templates/p.txt")).unwrap();
    assert_eq!(problems(&folder), ["templates/p.txt: is a link; a plugin has plain files only"]);
    assert!(problems(&Folder::tally().put("setup.py", ""))[0].contains("setup.py: is no file of a plugin"));
    assert!(problems(&Folder::tally().put(".gitignore", "x")).is_empty(), "a folder may be a checkout");
    assert!(zipped(&[("README.md", b"", 0o644)])[0].contains("plugin.toml: is missing"));
    assert!(zipped(&[("plugin.toml", b"\xff\xfe", 0o644)])[0].contains("is no UTF-8 text"));
}

#[test]
fn a_zip_of_the_folder_itself_is_the_same_plugin() {
    assert_eq!(
        zipped(&[("shop/plugin.toml", MANIFEST, 0o644), ("shop/functions/f.sql", b"select 1", 0o644)]),
        [""; 0]
    );
}

#[test]
fn what_is_too_large_is_refused_while_it_is_read() {
    let zeros = vec![b' '; 5 << 20];
    let found = zipped(&[("plugin.toml", MANIFEST, 0o644), ("templates/big.txt", &zeros, 0o644)]);
    assert!(found[0].contains("packed more than 200 to 1"), "{found:?}");
    let mut noise = vec![0_u8; 5 << 20];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = b'a' + (state >> 24) as u8 % 26;
    }
    let found = zipped(&[("plugin.toml", MANIFEST, 0o644), ("templates/big.txt", &noise, 0o644)]);
    assert!(found[0].contains("larger than 4 MiB"), "{found:?}");
    let part = &noise[..4 << 20];
    let many: Vec<(String, &[u8], u32)> =
        (0..5).map(|n| (format!("templates/{n}.txt"), part, 0o644)).collect();
    let many: Vec<(&str, &[u8], u32)> =
        many.iter().map(|(name, content, mode)| (name.as_str(), *content, *mode)).collect();
    let found = zipped(&many);
    assert!(found[0].contains("larger than 16 MiB"), "{found:?}");
    let names: Vec<String> = (0..1002).map(|n| format!("templates/{n}.txt")).collect();
    let entries: Vec<(&str, &[u8], u32)> =
        names.iter().map(|name| (name.as_str(), &b""[..], 0o644)).collect();
    assert!(zipped(&entries)[0].contains("more than 1000 files"));
    let folder = Folder::tally().put("templates/big.txt", std::str::from_utf8(&noise).unwrap());
    assert!(problems(&folder)[0].contains("larger than 4 MiB"));
}

#[test]
fn a_check_needs_no_database() {
    let folder = Folder::tally();
    let path = folder.path();
    let said = finish(bare(), &["plugin", "check", path.to_str().unwrap()], "").ok();
    assert!(said.contains("plugin tally 1.0.0 is well formed"), "{said}");
    let said = finish(bare(), &["plugin", "check", path.to_str().unwrap(), "--json"], "").json();
    assert_eq!(said["manifest"]["endpoints"][0]["input"][0]["name"], "what");
    finish(bare(), &["plugin", "check", "nowhere"], "").refused(1, &["nowhere", "No such file"]);
}
