//! `rowbeat plugin new`: a small plugin that installs, runs and tests itself, to be changed into what is wanted.

use std::collections::BTreeMap;

use super::bundle::Bundle;

const FILES: [(&str, &str); 5] = [
    (
        "plugin.toml",
        r#"format = 1
name = "NAME"
version = "0.1.0"
description = "Counts what it is told to count."
licence = "MIT"

[requires]
rowbeat = "0.1"

[settings]
step = { type = "integer", default = 1, min = 1, description = "How much is added each time." }

[[task]]
name = "NAME.count"
executor = "sql"
function = "NAME.count"

[[schedule]]
name = "NAME.count_daily"
definition = "NAME.count"
spec = "@daily"
"#,
    ),
    (
        "README.md",
        "# NAME\n\nCounts what it is told to count: `select rowbeat.enqueue('NAME.count', '{\"what\": \"apples\"}')`.\n",
    ),
    (
        "migrations/V1__counter.sql",
        "-- Tables: applied once, never edited. The next change is V2__....sql.\ncreate table NAME.counter (\n    what   text primary key,\n    times  bigint not null default 0\n);\n",
    ),
    (
        "functions/count.sql",
        "-- Functions: replaced at every upgrade. They run as the plugin's own role, with its schema as search path.
create or replace function NAME.count(payload jsonb) returns jsonb language sql as $$
    insert into NAME.counter as c (what, times)
    values (coalesce(payload ->> 'what', 'days'), rowbeat.read_setting('NAME', 'step')::bigint)
    on conflict (what) do update set times = c.times + excluded.times
    returning jsonb_build_object('what', c.what, 'times', c.times)
$$;
",
    ),
    (
        "tests/count.sql",
        "-- Run by `rowbeat plugin install --test`, and undone again. A test fails by raising.
do $$
begin
    perform NAME.count('{\"what\": \"apples\"}'), NAME.count('{\"what\": \"apples\"}');
    assert (select times from NAME.counter where what = 'apples') = 2, 'apples are counted';
end $$;
",
    ),
];

/// The files of a new plugin.
pub fn scaffold(name: &str) -> Bundle {
    let files =
        FILES.iter().map(|(path, text)| ((*path).to_owned(), text.replace("NAME", name).into_bytes()));
    Bundle::of_files(format!("new {name}"), files.collect::<BTreeMap<_, _>>())
}

#[cfg(test)]
mod tests {
    use crate::plugin::Plugin;

    #[test]
    fn a_new_plugin_is_well_formed() {
        let plugin = Plugin::read(super::scaffold("tally")).expect("nothing is wrong with it");
        assert_eq!((plugin.manifest.name.as_str(), plugin.migrations.len()), ("tally", 1));
    }
}
