//! Templates (Jinja's language, by minijinja): text from data, within limits.
//!
//! A name that the data does not have is an error, not an empty text. HTML is escaped. A template cannot read files, run for ever or write
//! without end; it extends and includes only what it is given. Errors name the line as it is written and never show data.

use std::io::{self, Write};

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;

/// Instructions that one rendering may take: about a hundred thousand lines of a table.
const FUEL: u64 = 2_000_000;
/// Longest result, in bytes.
const LONGEST: usize = 16 * 1024 * 1024;

/// What a result is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escape {
    /// Plain text: values stand as they are.
    Nothing,
    /// HTML: values are escaped unless the template marks them as safe.
    Html,
}

/// Renders a template; `name` is what messages call it.
///
/// # Errors
/// What is wrong with the template or missing in the data, as text.
pub(crate) fn render(name: &str, source: &str, data: &Value, escape: Escape) -> Result<String, String> {
    render_among(name, &[(name, source)], data, escape)
}

/// Renders one of several templates, which may extend and include each other, as HTML.
///
/// # Errors
/// As [`render`].
pub(crate) fn render_page(name: &str, sources: &[(&str, &str)], data: &Value) -> Result<String, String> {
    render_among(name, sources, data, Escape::Html)
}

fn render_among(
    name: &str,
    sources: &[(&str, &str)],
    data: &Value,
    escape: Escape,
) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(move |_| match escape {
        Escape::Nothing => AutoEscape::None,
        Escape::Html => AutoEscape::Html,
    });
    // It takes any width, and so any amount of memory.
    environment.remove_filter("indent");
    let mut page = Page::default();
    let data = minijinja::Value::from(Serde(data));
    let added = sources.iter().try_for_each(|(name, source)| environment.add_template(name, source));
    added
        .and_then(|()| environment.get_template(name)?.render_captured_to(data, &mut page).map(drop))
        .map_err(|error| {
            // The mistake may stand in another one than was asked for.
            let mut error = &error;
            while let Some(cause) = std::error::Error::source(error).and_then(|cause| cause.downcast_ref()) {
                error = cause;
            }
            let name = error.name().unwrap_or(name);
            let source = sources.iter().find(|(other, _)| *other == name).map_or("", |(_, source)| source);
            describe(name, source, error)
        })?;
    String::from_utf8(page.0).map_err(|_| format!("template {name}: the result is no text"))
}

/// What is wrong with a template's syntax; names are looked up when it is rendered.
pub(crate) fn check(name: &str, source: &str) -> Result<(), String> {
    let checked = Environment::new().template_from_named_str(name, source).map(drop);
    checked.map_err(|error| describe(name, source, &error))
}

fn describe(name: &str, source: &str, error: &minijinja::Error) -> String {
    let problem = match (error.detail(), std::error::Error::source(error)) {
        (_, Some(cause)) => cause.to_string(),
        (Some(detail), None) => format!("{}: {detail}", error.kind()),
        (None, None) => error.kind().to_string(),
    };
    let written =
        error.line().and_then(|line| Some((line, source.lines().nth(line.checked_sub(1)?)?.trim())));
    match written {
        Some((line, text)) => {
            let text: String = text.chars().take(80).collect();
            format!("template {name}, line {line}: {problem}, in `{text}`")
        }
        None => format!("template {name}: {problem}"),
    }
}

/// What has been written, up to the longest.
#[derive(Default)]
struct Page(Vec<u8>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::other(format!("the result is longer than {LONGEST} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(source: &str, data: &Value) -> String {
        render("text", source, data, Escape::Nothing).unwrap_err()
    }

    #[test]
    fn html_is_escaped_and_text_is_not() {
        let data = json!({ "name": "<b>Tom & Co</b>", "rows": [1, 2], "net": 12.5 });
        let source = "{{ name }}{% for row in rows %} {{ row }}{% endfor %} {{ '%.2f' | format(net) }}";
        assert_eq!(render("t", source, &data, Escape::Nothing).unwrap(), "<b>Tom & Co</b> 1 2 12.50");
        let html = render("t", source, &data, Escape::Html).unwrap();
        assert!(html.starts_with("&lt;b&gt;Tom &amp; Co"), "{html}");
    }

    #[test]
    fn a_name_that_is_missing_is_an_error_that_shows_where() {
        let data = json!({ "customer": { "name": "secret" } });
        let shown = error("Dear {{ customer.name }},\n  you owe {{ customer.amuont }}.", &data);
        assert_eq!(shown, "template text, line 2: undefined value, in `you owe {{ customer.amuont }}.`");
        assert!(error("{{ a", &data).contains("line 1: syntax error"), "{}", error("{{ a", &data));
        assert_eq!(render("t", "{{ x | default('-') }}", &data, Escape::Nothing).unwrap(), "-");
    }

    #[test]
    fn templates_run_and_write_within_limits() {
        let data = json!({ "text": "x".repeat(1 << 20) });
        let nested = "{% for a in range(9999) %}{% for b in range(9999) %}.{% endfor %}{% endfor %}";
        assert!(error(nested, &data).contains("fuel"), "{}", error(nested, &data));
        let long = "{% for a in range(99) %}{{ text }}{% endfor %}";
        assert!(error(long, &data).contains("longer than"), "{}", error(long, &data));
        assert!(error("{{ 'a' | indent(99999999999) }}", &data).contains("indent"));
        assert!(error("{% include '/etc/passwd' %}", &data).contains("line 1"));
        assert!(error("{% include 'text' %}", &data).contains("line 1"), "not itself without end");
    }

    #[test]
    fn a_page_extends_and_includes_others_and_a_mistake_is_found_where_it_stands() {
        let mut sources = vec![
            ("base.html", "<h1>{% block title %}{% endblock %}</h1>{% include 'foot.html' %}"),
            ("foot.html", "<i>{{ name }}</i>"),
            ("page.html", "{% extends 'base.html' %}{% block title %}{{ name }}{% endblock %}"),
        ];
        let data = json!({ "name": "<Tom>" });
        let page = render_page("page.html", &sources, &data).unwrap();
        assert_eq!(page, "<h1>&lt;Tom&gt;</h1><i>&lt;Tom&gt;</i>");
        sources[1].1 = "\n{{ nmae }}";
        let shown = render_page("page.html", &sources, &data).unwrap_err();
        assert!(shown.starts_with("template foot.html, line 2: undefined value"), "{shown}");
        sources.remove(1);
        let shown = render_page("page.html", &sources, &data).unwrap_err();
        assert!(shown.contains("foot.html"), "{shown}");
    }
}
