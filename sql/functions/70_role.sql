-- Roles: of people (reader, producer, operator) and of plugins; what each may, and what plugins see of the engine.
--
-- Roles belong to the cluster, grants to the database: the three roles serve all databases of a cluster. Functions that look at
-- current_user are no definer's, and views show the caller's current_user, which is how a plugin gets to see its own.

-- Whether this session's role can make roles.
create or replace function rowbeat.makes_roles() returns boolean
language sql stable set search_path = '' as $$
    select r.rolsuper or r.rolcreaterole from pg_catalog.pg_roles r where r.rolname = current_user
$$;
comment on function rowbeat.makes_roles() is 'Whether the current role may create roles.';

-- The role of a plugin in this database; a name that would be too long is cut and ends in a hash of all of it.
create or replace function rowbeat.plugin_role_name(p_plugin text) returns name
language sql stable set search_path = '' as $$
    select case when octet_length(full_name) <= 63 then full_name
        else left(regexp_replace(full_name, '[^ -~]', '_', 'g'), 54) || '_' || left(md5(full_name), 8) end::name
    from (select format('rowbeat_%s_%s', current_database(), p_plugin) as full_name) n
$$;
comment on function rowbeat.plugin_role_name(text) is 'Name of a plugin''s role: rowbeat_<database>_<plugin>.';

-- Promises: p_member can do what p_role can, also become it. A superuser needs no membership. From Postgres 16 on, whoever creates a
--   role may grant it but is no full member: both are said.
create or replace function rowbeat.join_role(p_role name, p_member name) returns void
language plpgsql volatile set search_path = '' as $$
begin
    if (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = p_member) then
        return;
    end if;
    if current_setting('server_version_num')::integer >= 160000 then
        execute format('grant %I to %I with inherit true, set true', p_role, p_member);
    elsif not pg_has_role(p_member, p_role, 'member') then
        execute format('grant %I to %I', p_role, p_member);
    end if;
end $$;
comment on function rowbeat.join_role(name, name) is 'Makes a role a full member of another.';

-- What a plugin's role may do in schema rowbeat. Its own schedules, watches and announcements only: policies of those tables see to it.
create or replace function rowbeat.grant_plugin(p_role name) returns void
language plpgsql volatile set search_path = '' as $$
begin
    execute format('grant usage on schema rowbeat to %I', p_role);
    execute format('grant execute on function rowbeat.enqueue(text, jsonb, timestamptz, text, integer, integer, interval, text, text[], interval, text),
        rowbeat.enqueue_many(jsonb) to %I', p_role);
    execute format('grant select, insert, update, delete on rowbeat.schedule to %I', p_role);
    -- Column by column: what the router evaluates as the daemon is not for plugins to write.
    execute format('grant select, delete, insert (name, table_name, operations, definition, columns, exclude, grain, effective_from, effective_until,
        time_zone, enabled, serial_key), update (name, table_name, operations, definition, columns, exclude, grain, effective_from, effective_until,
        time_zone, enabled, serial_key) on rowbeat.watch to %I', p_role);
    execute format('grant select, insert, update, delete on rowbeat.listening to %I', p_role);
    execute format('grant select on rowbeat.capture_trigger, rowbeat.unneeded_trigger to %I', p_role);
    execute format('grant select, delete on rowbeat.own_task to %I', p_role);
    execute format('grant execute on function rowbeat.catch_up() to %I', p_role);
    execute format('grant select on rowbeat.own_source, rowbeat.own_backup, rowbeat.backup_history, rowbeat.backup_latest, rowbeat.backup_deleted to %I', p_role);
    execute format('grant select on rowbeat.own_setting, rowbeat.own_file to %I', p_role);
end $$;
comment on function rowbeat.grant_plugin(name) is 'Grants a plugin''s role what plugins may do.';

-- The live and ended tasks of the caller's own definitions; the daemon's role sees all. delete cancels.
create or replace view rowbeat.own_task as
select t.* from rowbeat.tasks t
where t.definition in (select d.name from rowbeat.plugin_part d join rowbeat.plugin p on p.name = d.plugin where d.kind = 'task' and p.role_name = current_user)
    or not exists (select from rowbeat.plugin p where p.role_name = current_user);
comment on view rowbeat.own_task is 'Tasks of the calling plugin''s definitions; delete from it cancels.';

-- Promises: what the view shows is cancelled as by rowbeat.cancel. Runs as its owner: the view has decided whose task it is.
create or replace function rowbeat.cancel_own_task() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    perform rowbeat.cancel(old.id);
    return old;
end $$;
comment on function rowbeat.cancel_own_task() is 'Cancels a task that is deleted from rowbeat.own_task.';

create or replace trigger cancel_own_task instead of delete on rowbeat.own_task
    for each row execute function rowbeat.cancel_own_task();

-- The settings of the calling plugin; the daemon's role sees all.
create or replace view rowbeat.own_setting as
select s.plugin, s.name, coalesce(s.value, s.default_value) as value
from rowbeat.plugin_setting s join rowbeat.plugin p on p.name = s.plugin
where p.role_name = current_user or not exists (select from rowbeat.plugin c where c.role_name = current_user);
comment on view rowbeat.own_setting is 'Settings of the calling plugin, with their values in force.';

-- The files of the calling plugin, its templates above all; the daemon's role sees all.
create or replace view rowbeat.own_file as
select f.plugin, f.path, f.content
from rowbeat.plugin_file f join rowbeat.plugin p on p.name = f.plugin
where p.role_name = current_user or not exists (select from rowbeat.plugin c where c.role_name = current_user);
comment on view rowbeat.own_file is 'Files of the calling plugin.';

-- Its own are the schedules and watches that carry the plugin's name, and those that its manifest declares under other names.
grant select (plugin, kind, name) on rowbeat.plugin_part to public;
alter policy plugin_touches_its_own on rowbeat.schedule
    using (coalesce((select starts_with(schedule.name, p.name || '.') or exists (
        select from rowbeat.plugin_part t where t.plugin = p.name and t.kind = 'schedule' and t.name = schedule.name)
        from rowbeat.plugin p where p.role_name = current_user), true));
alter policy plugin_touches_its_own on rowbeat.watch
    using (coalesce((select starts_with(watch.name, p.name || '.') or exists (
        select from rowbeat.plugin_part t where t.plugin = p.name and t.kind = 'watch' and t.name = watch.name)
        from rowbeat.plugin p where p.role_name = current_user), true));

-- A plugin's setting as text, null when it has no value; cast it. Within a plugin only its own can be read.
create or replace function rowbeat.read_setting(p_plugin text, p_name text) returns text
language sql stable as $$
    select s.value #>> '{}' from rowbeat.own_setting s where s.plugin = p_plugin and s.name = p_name
$$;
comment on function rowbeat.read_setting(text, text) is 'A setting of a plugin, as text.';

-- What is installed, for people.
create or replace view rowbeat.plugins as
select p.name, p.version, p.description, p.role_name is not null as isolated,
    case when p.removed_at is null then 'installed' else 'removed, data kept' end as state, p.origin, p.installed_at, p.changed_at, p.digest,
    (select count(*) from rowbeat.plugin_part t where t.plugin = p.name) as parts
from rowbeat.plugin p;
comment on view rowbeat.plugins is 'Installed plugins, and whether each runs as a role of its own.';

-- Promises: the three roles of people exist where they can be made, and what exists may do here what it should; plugins' roles likewise.
--   Safe to repeat. Returns the roles that are missing and cannot be made.
-- Called by: rowbeat migrate, after every change of the schema.
create or replace function rowbeat.grant_roles() returns text[]
language plpgsql volatile set search_path = '' as $$
declare
    v_role  name;
begin
    foreach v_role in array array['rowbeat_reader', 'rowbeat_producer', 'rowbeat_operator'] loop
        if to_regrole(v_role) is null and rowbeat.makes_roles() then
            begin
                execute format('create role %I nologin', v_role);
            exception when duplicate_object or unique_violation then
                -- Another database of the cluster was faster.
                null;
            end;
        end if;
        if to_regrole(v_role) is not null then
            execute format('grant usage on schema rowbeat to %I', v_role);
            perform rowbeat.grant_person(v_role);
        end if;
    end loop;
    perform rowbeat.grant_plugin(p.role_name) from rowbeat.plugin p where to_regrole(quote_ident(p.role_name)) is not null;
    return array(select r from unnest(array['rowbeat_reader', 'rowbeat_producer', 'rowbeat_operator']) r where to_regrole(r) is null);
end $$;
comment on function rowbeat.grant_roles() is 'Makes the roles rowbeat_reader, rowbeat_producer and rowbeat_operator, and grants them and plugins'' roles what they may do.';

-- reader: the views but those of images, which hold whole tables, and what they look up. producer: enqueue and cancel, by functions or by a plain insert. operator: all rows but those that say what is
-- installed, and every function; no DDL.
create or replace function rowbeat.grant_person(p_role name) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_relation  record;
begin
    if p_role = 'rowbeat_producer' then
        grant execute on function rowbeat.enqueue(text, jsonb, timestamptz, text, integer, integer, interval, text, text[], interval, text),
            rowbeat.enqueue_many(jsonb), rowbeat.cancel(bigint) to rowbeat_producer;
        grant insert (definition, payload, queue, priority, run_at, max_attempts, timeout, unique_key, serial_key), select (id) on rowbeat.task
            to rowbeat_producer;
        grant select on rowbeat.task_definition to rowbeat_producer;
        return;
    end if;
    if p_role = 'rowbeat_operator' then
        grant execute on all functions in schema rowbeat to rowbeat_operator;
        revoke execute on function rowbeat.purge_plugin(text), rowbeat.make_plugin_home(text), rowbeat.grant_roles() from rowbeat_operator;
    end if;
    -- Functions within the view health look at these as the caller.
    execute format('grant select (queue, priority, definition, parked) on rowbeat.task to %I', p_role);
    execute format('grant select on rowbeat.task_definition, rowbeat.queue, rowbeat.feature to %I', p_role);
    for v_relation in
        select c.oid::regclass as name, c.relkind = 'v' or c.relname like 'plugin%' and c.relname <> 'plugin_setting'
            or c.relname in ('schema_history', 'source_file') as only_read
        from pg_catalog.pg_class c
        where c.relnamespace = 'rowbeat'::regnamespace and not c.relispartition
            and (c.relkind = 'v' or c.relkind in ('r', 'p') and p_role = 'rowbeat_operator')
            and (p_role <> 'rowbeat_reader' or c.relname not in ('backup_history', 'backup_latest', 'backup_deleted'))
    loop
        execute format('grant %s on %s to %I', case when v_relation.only_read then 'select' else 'select, insert, update, delete' end,
            v_relation.name, p_role);
    end loop;
end $$;
comment on function rowbeat.grant_person(name) is 'Grants one of the roles of people what it may do.';

-- Promises: the plugin's role may read these relations, and no longer those that only its former manifest named.
-- Called by: the installer. SQLSTATEs: 42P01, 42501.
create or replace function rowbeat.grant_plugin_read(p_plugin text, p_relations text[], p_former text[]) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_role      name := (select p.role_name from rowbeat.plugin p where p.name = p_plugin);
    v_relation  text;
begin
    if v_role is null then
        return;
    end if;
    for v_relation in
        select o from unnest(p_former) o where o <> all (p_relations) and to_regclass(o) is not null
    loop
        execute format('revoke select on %s from %I', v_relation::regclass, v_role);
    end loop;
    foreach v_relation in array p_relations loop
        execute format('grant usage on schema %I to %I',
            (select n.nspname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = v_relation::regclass), v_role);
        execute format('grant select on %s to %I', v_relation::regclass, v_role);
    end loop;
end $$;
comment on function rowbeat.grant_plugin_read(text, text[], text[]) is 'Lets a plugin''s role read the relations that its manifest requires.';
