-- Statements of the plugin installer and of `rowbeat plugin`. The first group runs in the installer's one transaction.

-- name: begin
-- One migration or plugin at a time: migrations hold the same key.
select pg_advisory_xact_lock(1919907682, 2)

-- name: may_install
-- Whether this role may install: a superuser, or a member of the owner of schema rowbeat; and that owner.
select pg_has_role(n.nspowner, 'usage') as may, n.nspowner::regrole::text as owner from pg_namespace n where n.nspname = 'rowbeat'

-- name: installed
-- $1 plugin. Intact: its functions still run as its role.
select p.version, p.digest, p.removed_at is not null as removed, p.role_name is not null as isolated, p.manifest,
    p.role_name is null or not exists (
        select from pg_proc f where f.pronamespace = to_regnamespace(quote_ident(p.name)) and f.prokind = 'f'
            and (not f.prosecdef or f.proowner is distinct from to_regrole(quote_ident(p.role_name))::oid)
    ) as intact
from rowbeat.plugin p where p.name = $1

-- name: make_home
-- $1 plugin: its role, or null.
select rowbeat.make_plugin_home($1)::text as role

-- name: record
-- $1 name · $2 version · $3 description · $4 licence · $5 digest · $6 origin · $7 role · $8 manifest.
insert into rowbeat.plugin as p (name, version, description, licence, digest, origin, role_name, manifest)
values ($1, $2, $3, $4, $5, $6, $7::text::name, $8)
on conflict (name) do update
set version = excluded.version, description = excluded.description, licence = excluded.licence, digest = excluded.digest,
    origin = excluded.origin, manifest = excluded.manifest, changed_at = now(), removed_at = null

-- name: clear
-- $1 plugin: what is written anew by every installation.
with files as (delete from rowbeat.plugin_file f where f.plugin = $1),
    endpoints as (delete from rowbeat.plugin_endpoint e where e.plugin = $1)
delete from rowbeat.plugin_command c where c.plugin = $1

-- name: put_file
-- $1 plugin · $2 path · $3 content.
insert into rowbeat.plugin_file (plugin, path, content) values ($1, $2, $3)

-- name: enter
-- $1 role, or none: who runs the plugin's files; with its schema first. Literals mean what they look like.
select set_config('role', $1, true), set_config('search_path', $2 || ', pg_temp', true), set_config('standard_conforming_strings', 'on', true),
    pg_current_xact_id()::text as transaction, current_user::text as role

-- name: leave
-- After a file of the plugin: is it the same transaction, and the same role? Then back to the installer's own role.
select pg_current_xact_id()::text as transaction, current_user::text as role, set_config('role', 'none', true),
    set_config('search_path', '', true), set_config('check_function_bodies', 'on', true)

-- name: migrations
-- $1 plugin.
select m.version, m.name, m.checksum from rowbeat.plugin_migration m where m.plugin = $1 order by m.version

-- name: put_migration
-- $1 plugin · $2 version · $3 name · $4 checksum.
insert into rowbeat.plugin_migration (plugin, version, name, checksum) values ($1, $2, $3, $4)

-- name: seal
-- $1 plugin · $2 role or null.
select rowbeat.seal_plugin($1, $2::text::name)

-- name: judge_function
-- $1 plugin · $2 function · $3 argument types in brackets · $4 result types that will do.
select rowbeat.judge_plugin_function($1, $2, $3, $4) as problem

-- name: put_part
-- $1 plugin · $2 kind · $3 name · $4 columns.
select rowbeat.put_plugin_part($1, $2, $3, $4) as change

-- name: drop_parts
-- $1 plugin · $2 what stays: {"kind": ["name"]}.
select d.kind, d.name from rowbeat.drop_plugin_parts($1, $2) d

-- name: put_setting
-- $1 plugin · $2 name · $3 type · $4 description · $5 rules · $6 default.
insert into rowbeat.plugin_setting (plugin, name, type, description, rules, default_value) values ($1, $2, $3, $4, $5, $6)
on conflict (plugin, name) do update
set type = excluded.type, description = excluded.description, rules = excluded.rules, default_value = excluded.default_value

-- name: drop_settings
-- $1 plugin · $2 names that stay.
delete from rowbeat.plugin_setting s where s.plugin = $1 and s.name <> all ($2)

-- name: put_endpoint
-- $1 plugin · $2 the endpoint.
insert into rowbeat.plugin_endpoint (plugin, method, path, shape, auth, function, input, cookies, max_body_bytes, template, description)
select $1, e.method, e.path, e.shape, e.auth, e.function, e.input, e.cookies, e.max_body_bytes, e.template, e.description
from jsonb_populate_record(null::rowbeat.plugin_endpoint, $2) e

-- name: endpoint_owner
-- $1 method · $2 shape: whose it is.
select e.plugin from rowbeat.plugin_endpoint e where e.method = $1 and e.shape = $2

-- name: put_command
-- $1 plugin · $2 the command.
insert into rowbeat.plugin_command (plugin, name, aliases, function, task, queued, arguments, description)
select $1, c.name, c.aliases, c.function, c.task, c.queued, c.arguments, c.description
from jsonb_populate_record(null::rowbeat.plugin_command, $2) c

-- name: missing_plugins
-- $1 names · $2 lowest versions: what is required and not there.
select u.name, u.version, p.version as found from unnest($1::text[], $2::text[]) u (name, version)
left join rowbeat.plugin p on p.name = u.name and p.removed_at is null
where p.version is null or string_to_array(p.version, '.')::integer[] < string_to_array(u.version, '.')::integer[]

-- name: missing_features
-- $1 names: those that do not exist.
select u.name from unnest($1::text[]) u (name) where not exists (select from rowbeat.feature f where f.name = u.name)

-- name: dependants
-- $1 plugin: who requires it.
select p.name, p.manifest -> 'plugins' ->> $1 as version from rowbeat.plugin p where p.removed_at is null and p.manifest -> 'plugins' ? $1 order by 1

-- name: grant_read
-- $1 plugin · $2 relations: its role may read them, $3 and these no longer.
select rowbeat.grant_plugin_read($1, $2, $3)

-- name: grant_roles
-- The roles of people that are missing and cannot be made.
select rowbeat.grant_roles() as missing

-- name: cancel_tasks
-- $1 plugin: how many still run.
select rowbeat.cancel_plugin_tasks($1) as alive

-- name: forget
-- $1 plugin: removed, its data stays.
update rowbeat.plugin p set removed_at = now(), changed_at = now() where p.name = $1

-- name: purge
-- $1 plugin.
select rowbeat.purge_plugin($1)

-- name: list
-- All, by name.
select to_jsonb(p) as plugin from rowbeat.plugins p order by p.name

-- name: files
-- $1 plugin.
select f.path, f.content from rowbeat.plugin_file f where f.plugin = $1 order by f.path

-- name: settings
-- $1 plugin.
select jsonb_build_object('name', s.name, 'value', coalesce(s.value, s.default_value), 'type', s.type, 'changed', s.value is not null,
    'description', s.description) as setting
from rowbeat.plugin_setting s where s.plugin = $1 order by s.name

-- name: set
-- $1 plugin · $2 setting · $3 value or null for the default: whether there is such a setting.
update rowbeat.plugin_setting s set value = $3 where s.plugin = $1 and s.name = $2 returning s.type

-- name: begin_baselines
-- $1 plugin. The first rows of what it backs up have images from the start; of small tables all.
select rowbeat.continue_baseline(b.name) as read
from rowbeat.backup b
join rowbeat.backup_source s on s.id = b.source
where s.schema_name = $1 and b.baselined_at is null
