-- Plugins: what is installed, from which files, and whose every row is.
--
-- A plugin's files are kept, so that any daemon can render its templates and anybody can export it again. What it added to the
-- other tables is noted part by part, with the values its manifest declared: an upgrade changes what the manifest changed and
-- leaves alone what an operator did. A plugin's role may touch only schedules and watches that carry the plugin's name, hence the
-- two policies; they do not concern the tables' owner or any role that is no plugin's. Locks: new tables; schedule and watch
-- exclusively, for a moment.

create table rowbeat.plugin (
    name          text primary key,
    version       text not null,
    description   text not null default '',
    licence       text,
    digest        text not null,
    origin        text not null,
    role_name     name,
    manifest      jsonb not null,
    installed_at  timestamptz not null default now(),
    changed_at    timestamptz not null default now(),
    removed_at    timestamptz,
    constraint plugin_name_fits check (name ~ '^[a-z][a-z0-9_]{0,39}$')
);
create unique index plugin_role on rowbeat.plugin (role_name);
comment on table rowbeat.plugin is 'Installed plugins, and removed ones whose data was kept.';
comment on column rowbeat.plugin.name is 'The plugin; also the name of its schema.';
comment on column rowbeat.plugin.version is 'Version in force.';
comment on column rowbeat.plugin.description is 'For people.';
comment on column rowbeat.plugin.licence is 'Its licence.';
comment on column rowbeat.plugin.digest is 'SHA-256 over its files, the same for folder, zip and bundled.';
comment on column rowbeat.plugin.origin is 'Where it was installed from: folder, zip or bundled, and its name.';
comment on column rowbeat.plugin.role_name is 'The role that owns its schema and runs its functions; null: it runs as the daemon''s own role, not isolated.';
comment on column rowbeat.plugin.manifest is 'Its plugin.toml as JSON.';
comment on column rowbeat.plugin.installed_at is 'When it was installed.';
comment on column rowbeat.plugin.changed_at is 'When it was installed, upgraded or removed last.';
comment on column rowbeat.plugin.removed_at is 'When it was removed; its schema and data are still there.';
-- The policies below ask who is a plugin.
grant select (name, role_name) on rowbeat.plugin to public;

create table rowbeat.plugin_file (
    plugin   text not null references rowbeat.plugin (name) on delete cascade,
    path     text not null,
    content  bytea not null,
    primary key (plugin, path)
);
comment on table rowbeat.plugin_file is 'The files of each plugin: templates are rendered from here, export writes them out.';
comment on column rowbeat.plugin_file.plugin is 'The plugin.';
comment on column rowbeat.plugin_file.path is 'Path within the plugin, with slashes.';
comment on column rowbeat.plugin_file.content is 'The file.';

create table rowbeat.plugin_migration (
    plugin      text not null references rowbeat.plugin (name) on delete cascade,
    version     integer not null,
    name        text not null,
    checksum    text not null,
    applied_at  timestamptz not null default now(),
    primary key (plugin, version)
);
comment on table rowbeat.plugin_migration is 'Migrations of plugins that were applied.';
comment on column rowbeat.plugin_migration.plugin is 'The plugin.';
comment on column rowbeat.plugin_migration.version is 'Number of the migration.';
comment on column rowbeat.plugin_migration.name is 'Its subject.';
comment on column rowbeat.plugin_migration.checksum is 'Checksum of number, name and text: an edited file is refused.';
comment on column rowbeat.plugin_migration.applied_at is 'When it was applied.';

create table rowbeat.plugin_part (
    plugin    text not null references rowbeat.plugin (name) on delete cascade,
    kind      text not null,
    name      text not null,
    declared  jsonb not null,
    primary key (kind, name),
    constraint plugin_part_kind_known check (kind in ('task', 'schedule', 'watch', 'channel', 'feature'))
);
create index plugin_part_plugin on rowbeat.plugin_part (plugin, kind);
comment on table rowbeat.plugin_part is 'Rows that plugins added to other tables.';
comment on column rowbeat.plugin_part.plugin is 'Whose row it is.';
comment on column rowbeat.plugin_part.kind is 'task (a row of task_definition), schedule, watch, channel or feature.';
comment on column rowbeat.plugin_part.name is 'Its name there.';
comment on column rowbeat.plugin_part.declared is 'What the manifest said, column by column; other columns are the operator''s.';

create table rowbeat.plugin_setting (
    plugin         text not null references rowbeat.plugin (name) on delete cascade,
    name           text not null,
    type           text not null,
    description    text not null default '',
    rules          jsonb not null default '{}',
    default_value  jsonb,
    value          jsonb,
    primary key (plugin, name),
    constraint plugin_setting_type_known check (type in ('text', 'integer', 'numeric', 'boolean', 'date', 'timestamp', 'uuid', 'json'))
);
comment on table rowbeat.plugin_setting is 'Settings of plugins: update value, and it counts from the next statement on. Null: the default.';
comment on column rowbeat.plugin_setting.plugin is 'The plugin.';
comment on column rowbeat.plugin_setting.name is 'What is set.';
comment on column rowbeat.plugin_setting.type is 'text, integer, numeric, boolean, date, timestamp, uuid or json.';
comment on column rowbeat.plugin_setting.description is 'For people.';
comment on column rowbeat.plugin_setting.rules is 'What a value must keep: min, max, max_length, enum.';
comment on column rowbeat.plugin_setting.default_value is 'The manifest''s default.';
comment on column rowbeat.plugin_setting.value is 'What the operator set; null: the default counts. Upgrades leave it alone.';

create table rowbeat.plugin_endpoint (
    plugin          text not null references rowbeat.plugin (name) on delete cascade,
    method          text not null,
    path            text not null,
    shape           text not null,
    auth            text not null,
    function        text not null,
    input           jsonb not null default '[]',
    cookies         text[] not null default '{}',
    max_body_bytes  integer not null,
    template        text,
    description     text not null default '',
    primary key (method, shape)
);
comment on table rowbeat.plugin_endpoint is 'HTTP endpoints that plugins declare.';
comment on column rowbeat.plugin_endpoint.plugin is 'The plugin.';
comment on column rowbeat.plugin_endpoint.method is 'GET, POST, PUT, PATCH or DELETE.';
comment on column rowbeat.plugin_endpoint.path is 'The path as declared, with {parameters}.';
comment on column rowbeat.plugin_endpoint.shape is 'The path with {} for every parameter: what may be declared only once.';
comment on column rowbeat.plugin_endpoint.auth is 'operator, token or none.';
comment on column rowbeat.plugin_endpoint.function is 'f(request jsonb) returns jsonb, or f(request jsonb, files bytea[]) returns jsonb when files are taken.';
comment on column rowbeat.plugin_endpoint.input is 'The fields in order: [{"name", "in", "type", "required", "default", ...}].';
comment on column rowbeat.plugin_endpoint.cookies is 'Names of the cookies that the function gets to see.';
comment on column rowbeat.plugin_endpoint.max_body_bytes is 'A longer request is refused.';
comment on column rowbeat.plugin_endpoint.template is 'The template of html answers that name none.';
comment on column rowbeat.plugin_endpoint.description is 'For people.';

create table rowbeat.plugin_command (
    plugin       text not null references rowbeat.plugin (name) on delete cascade,
    name         text not null,
    aliases      text[] not null default '{}',
    function     text,
    task         text,
    queued       text,
    arguments    jsonb not null default '[]',
    description  text not null default '',
    primary key (plugin, name),
    constraint plugin_command_does_something check (function is not null or task is not null)
);
comment on table rowbeat.plugin_command is 'Commands that plugins declare: rowbeat app <plugin> <command>.';
comment on column rowbeat.plugin_command.plugin is 'The plugin.';
comment on column rowbeat.plugin_command.name is 'The command, in kebab-case.';
comment on column rowbeat.plugin_command.aliases is 'Other names of it.';
comment on column rowbeat.plugin_command.function is 'f(arguments jsonb) returns setof text: the lines to print; null: the task is enqueued.';
comment on column rowbeat.plugin_command.task is 'The definition that is enqueued with --async, or always when there is no function.';
comment on column rowbeat.plugin_command.queued is 'What is printed then; {id} stands for the task.';
comment on column rowbeat.plugin_command.arguments is 'The arguments in order: [{"name", "type", "required", "default", ...}].';
comment on column rowbeat.plugin_command.description is 'For people.';

alter table rowbeat.schedule enable row level security;
create policy plugin_touches_its_own on rowbeat.schedule
    using (coalesce((select starts_with(schedule.name, p.name || '.') from rowbeat.plugin p where p.role_name = current_user), true));
alter table rowbeat.watch enable row level security;
create policy plugin_touches_its_own on rowbeat.watch
    using (coalesce((select starts_with(watch.name, p.name || '.') from rowbeat.plugin p where p.role_name = current_user), true));
