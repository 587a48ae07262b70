-- Plugins: the parts of an installation that the installer (src/plugin/installer) performs statement by statement, in one
-- transaction. Dynamic SQL: the rows of parts (columns are looked up in the catalogue) and DDL on the plugin's own schema.

-- Promises: the plugin's row of that kind is there as declared. A row that the same plugin declared before keeps what an operator
--   changed: only columns whose declared value changed are written, and those no longer declared get their default.
--   Returns added, changed or kept. Called by: the installer. Locks: the row.
-- SQLSTATEs: RB005 (a row of that name exists and is not this plugin's), and whatever the table says.
create or replace function rowbeat.put_plugin_part(p_plugin text, p_kind text, p_name text, p_declared jsonb) returns text
language plpgsql volatile set search_path = '' as $$
declare
    v_table    regclass := rowbeat.plugin_part_table(p_kind);
    v_row      jsonb := p_declared || jsonb_build_object('name', p_name);
    v_part     rowbeat.plugin_part;
    v_there    boolean;
    v_columns  text;
    v_values   text;
begin
    select * into v_part from rowbeat.plugin_part t where t.kind = p_kind and t.name = p_name;
    execute format('select exists (select from %s t where t.name = $1)', v_table) into v_there using p_name;
    if coalesce(v_part.plugin <> p_plugin, v_there) then
        raise exception using errcode = 'RB005', message = format('%s "%s" exists already%s', p_kind, p_name,
            coalesce(', it belongs to plugin ' || v_part.plugin, ' and belongs to no plugin')),
            hint = 'Names are shared by all plugins: begin them with the plugin''s name.';
    end if;
    insert into rowbeat.plugin_part (plugin, kind, name, declared) values (p_plugin, p_kind, p_name, p_declared)
    on conflict (kind, name) do update set declared = excluded.declared;
    if not v_there then
        -- Whoever runs the plugin's functions reads for it.
        if p_kind = 'consumer' then
            v_row := v_row || jsonb_build_object('role', (select quote_ident(coalesce(p.role_name, current_user)) from rowbeat.plugin p where p.name = p_plugin));
        end if;
        select string_agg(quote_ident(k), ', '), string_agg('r.' || quote_ident(k), ', ') into v_columns, v_values
        from jsonb_object_keys(v_row) k;
        execute format('insert into %s (%s) select %s from jsonb_populate_record(null::%1$s, $1) r', v_table, v_columns, v_values)
        using v_row;
        return 'added';
    end if;
    select string_agg(format('%I = %s', k, case when p_declared ? k then format('r.%I', k) else 'default' end), ', ') into v_columns
    from (select jsonb_object_keys(p_declared || v_part.declared) k) keys
    where p_declared -> k is distinct from v_part.declared -> k;
    if v_columns is null then
        return 'kept';
    end if;
    execute format('update %s t set %s from jsonb_populate_record(null::%1$s, $1) r where t.name = $2', v_table, v_columns)
    using v_row, p_name;
    return 'changed';
end $$;
comment on function rowbeat.put_plugin_part(text, text, text, jsonb) is 'Adds or changes a row that a plugin declares; returns added, changed or kept.';

create or replace function rowbeat.plugin_part_table(p_kind text) returns regclass
language sql stable set search_path = '' as $$
    select case p_kind when 'task' then 'rowbeat.task_definition' when 'consumer' then 'rowbeat.change_consumer' else 'rowbeat.' || p_kind end::regclass
$$;
comment on function rowbeat.plugin_part_table(text) is 'The table that parts of this kind are rows of.';

-- Promises: the plugin's rows that p_keep ({"kind": ["name"]}) does not list are gone; their kinds and names are returned. Nothing to keep:
--   so are the schedules and watches that it wrote at run time. Safe to
--   repeat. Locks: the rows. SQLSTATEs: RB005 (a definition has live tasks), 23503 (somebody else's schedule or watch needs it).
create or replace function rowbeat.drop_plugin_parts(p_plugin text, p_keep jsonb) returns table (kind text, name text)
language plpgsql volatile set search_path = '' as $$
begin
    -- Schedules and watches that the plugin wrote at run time go with it: they carry its name, and would keep its definitions.
    if p_keep = '{}' then
        return query delete from rowbeat.watch w where starts_with(w.name, p_plugin || '.') and exists (select from rowbeat.plugin_part d
            where d.plugin = p_plugin and d.kind = 'task' and d.name = w.definition) and not exists (select from rowbeat.plugin_part d
            where d.kind = 'watch' and d.name = w.name) returning 'watch', w.name;
        return query delete from rowbeat.schedule s where starts_with(s.name, p_plugin || '.') and exists (select from rowbeat.plugin_part d
            where d.plugin = p_plugin and d.kind = 'task' and d.name = s.definition) and not exists (select from rowbeat.plugin_part d
            where d.kind = 'schedule' and d.name = s.name) returning 'schedule', s.name;
    end if;
    -- What refers to definitions goes before them.
    for kind, name in
        select t.kind, t.name from rowbeat.plugin_part t
        where t.plugin = p_plugin and not coalesce(p_keep -> t.kind ? t.name, false)
        order by t.kind = 'task', t.kind, t.name
    loop
        execute format('delete from %s t where t.name = $1', rowbeat.plugin_part_table(kind)) using name;
        delete from rowbeat.plugin_part t where t.kind = drop_plugin_parts.kind and t.name = drop_plugin_parts.name;
        return next;
    end loop;
end $$;
comment on function rowbeat.drop_plugin_parts(text, jsonb) is 'Removes rows that a plugin no longer declares.';

-- Promises: true, and a warning, when a trigger wants something to be done by a definition that went with its plugin: the data was kept, and whoever
--   writes it is not refused because nothing comes of it. Whoever asks for it himself is. Called by: the triggers of task, schedule and watch,
--   which then write nothing. Runs as its owner: writers need not see plugins.
create or replace function rowbeat.outlived_plugin(p_definition text) returns boolean
language plpgsql stable security definer set search_path = '' as $$
begin
    if pg_trigger_depth() < 2 or exists (select from rowbeat.task_definition d where d.name = p_definition)
        or not exists (select from rowbeat.plugin p where p.removed_at is not null
            and p.manifest -> 'rows' @> jsonb_build_array(jsonb_build_object('kind', 'task', 'name', p_definition))) then
        return false;
    end if;
    raise warning 'task definition "%" was removed with its plugin: what is written now starts nothing', p_definition;
    return true;
end $$;
comment on function rowbeat.outlived_plugin(text) is 'Whether a trigger asks for a definition that went with its plugin.';

-- Promises: the plugin's live tasks have been told to stop; how many still live (running ones end soon after the commit).
-- Called by: removal. Locks: the tasks, one after another. Safe to repeat.
create or replace function rowbeat.cancel_plugin_tasks(p_plugin text) returns bigint
language plpgsql volatile set search_path = '' as $$
begin
    perform rowbeat.cancel(t.id)
    from rowbeat.plugin_part p join rowbeat.task t on t.definition = p.name
    where p.plugin = p_plugin and p.kind = 'task';
    return (select count(*) from rowbeat.plugin_part p join rowbeat.task t on t.definition = p.name
        where p.plugin = p_plugin and p.kind = 'task');
end $$;
comment on function rowbeat.cancel_plugin_tasks(text) is 'Cancels the live tasks of a plugin''s definitions; returns how many still run.';

-- Promises: the plugin's schema is there, and its role where roles can be made; returns the role, or null.
--   The plugin's name and the role of an earlier installation are used again. Called by: the installer.
-- SQLSTATEs: RB005 (the schema is somebody else's), 42501.
create or replace function rowbeat.make_plugin_home(p_plugin text) returns name
language plpgsql volatile set search_path = '' as $$
declare
    v_known  boolean := exists (select from rowbeat.plugin p where p.name = p_plugin);
    v_role   name := case when v_known then (select p.role_name from rowbeat.plugin p where p.name = p_plugin)
                 when rowbeat.makes_roles() then rowbeat.plugin_role_name(p_plugin) end;
begin
    if not v_known and to_regnamespace(quote_ident(p_plugin)) is not null then
        raise exception 'schema % exists already and is no plugin''s', p_plugin using errcode = 'RB005',
            hint = 'A plugin''s schema has its name: rename or drop yours.';
    end if;
    if v_role is not null then
        if to_regrole(quote_ident(v_role)) is null then
            execute format('create role %I nologin', v_role);
        end if;
        perform rowbeat.join_role(v_role, r.role)
        from (select current_user union select n.nspowner::regrole::name from pg_catalog.pg_namespace n where n.nspname = 'rowbeat') r (role);
        perform rowbeat.grant_plugin(v_role);
    end if;
    execute format('create schema if not exists %I', p_plugin);
    -- Operators see into it; what they may do there is for the plugin to grant.
    if to_regrole('rowbeat_operator') is not null then
        execute format('grant usage on schema %I to rowbeat_operator', p_plugin);
    end if;
    if v_role is not null then
        execute format('grant usage, create on schema %I to %I', p_plugin, v_role);
    end if;
    return v_role;
end $$;
comment on function rowbeat.make_plugin_home(text) is 'Makes a plugin''s schema and role; returns the role, null when none can be made.';

-- Promises: every function in the plugin's schema runs as the plugin's role with the plugin's search path, and nobody else may call it;
--   everything that the role owns lies in that schema, and it can make nothing more there. Called by: the installer, after the plugin's files ran.
-- SQLSTATEs: RB005 (the plugin made something elsewhere, or a procedure).
create or replace function rowbeat.seal_plugin(p_plugin text, p_role name) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_function  record;
    v_astray    text;
begin
    for v_function in
        select f.oid::regprocedure as name, f.prokind from pg_catalog.pg_proc f
        where f.pronamespace = to_regnamespace(quote_ident(p_plugin)) and f.prokind in ('f', 'p')
            and not exists (select from pg_catalog.pg_depend d
                where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = f.oid and d.deptype = 'e')
    loop
        if v_function.prokind = 'p' then
            raise exception '% is a procedure', v_function.name using errcode = 'RB005', hint = 'Make it a function: the daemon ends the transactions.';
        end if;
        execute format('alter function %s set search_path = %I, pg_temp', v_function.name, p_plugin);
        execute format('revoke all on function %s from public', v_function.name);
        if p_role is not null then
            execute format('alter function %s security definer', v_function.name);
        end if;
    end loop;
    if p_role is not null then
        execute format('revoke create on schema %I from %I', p_plugin, p_role);
    end if;
    select string_agg(format('%s %s', i.type, i.identity), ', ') into v_astray
    from pg_catalog.pg_shdepend d cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) i
    where d.refobjid = to_regrole(quote_ident(p_role)) and d.refclassid = 'pg_catalog.pg_authid'::regclass and d.deptype = 'o'
        and d.dbid = (select b.oid from pg_catalog.pg_database b where b.datname = current_database())
        and coalesce(i.schema, i.name) <> quote_ident(p_plugin) and coalesce(i.schema, '') not like 'pg\_temp%';
    if v_astray is not null then
        raise exception 'the plugin made objects outside of its schema: %', v_astray using errcode = 'RB005',
            hint = 'Everything it makes belongs into schema ' || p_plugin || '.';
    end if;
end $$;
comment on function rowbeat.seal_plugin(text, name) is 'Makes a plugin''s functions run as its role with its search path.';

-- What is wrong with a function that a manifest names; null: nothing. p_results lists the result types that will do; none: any.
create or replace function rowbeat.judge_plugin_function(p_plugin text, p_function text, p_arguments text, p_results text[]) returns text
language plpgsql stable set search_path = '' as $$
declare
    v_function  regprocedure := to_regprocedure(p_function || p_arguments);
    v_result    text := (select case when f.proretset then 'setof ' else '' end || f.prorettype::regtype from pg_catalog.pg_proc f where f.oid = v_function);
begin
    if v_function is null then
        return format('function %s%s does not exist', p_function, p_arguments);
    elsif (select f.pronamespace from pg_catalog.pg_proc f where f.oid = v_function) <> to_regnamespace(quote_ident(p_plugin)) then
        return format('function %s is not in the plugin''s schema', p_function);
    elsif p_results <> '{}' and not v_result = any (p_results) then
        return format('function %s returns %s, needed is %s', p_function, v_result, array_to_string(p_results, ' or '));
    end if;
    return null;
exception when others then
    return format('%s is no name of a function', p_function);
end $$;
comment on function rowbeat.judge_plugin_function(text, text, text, text[]) is 'What is wrong with a function that a plugin''s manifest names, or null.';

-- Promises: a function of an isolated plugin still runs as the plugin's role; an owner could have altered that.
-- Called by: resolve_function, before every call. SQLSTATEs: RB005.
create or replace function rowbeat.refuse_unsealed(p_function regprocedure) returns void
language plpgsql stable as $$
begin
    if exists (
        select from pg_catalog.pg_proc f join pg_catalog.pg_namespace n on n.oid = f.pronamespace
        join rowbeat.plugin p on p.name = n.nspname
        where f.oid = p_function and p.role_name is not null
            and (not f.prosecdef or f.proowner is distinct from to_regrole(quote_ident(p.role_name))::oid)
    ) then
        raise exception 'function % of a plugin was altered to run with other rights', p_function using errcode = 'RB005',
            hint = 'Install the plugin again: rowbeat plugin install.';
    end if;
end $$;
comment on function rowbeat.refuse_unsealed(regprocedure) is 'Refuses a plugin''s function that no longer runs as the plugin''s role.';

-- Promises: nothing of the plugin is left: schema with all data and its images, role, files. Called by: removal with --purge.
-- Locks: exclusively, everything in the schema.
create or replace function rowbeat.purge_plugin(p_plugin text) returns void
language plpgsql volatile set search_path = '' as $$
declare
    v_role name := (select p.role_name from rowbeat.plugin p where p.name = p_plugin);
begin
    perform rowbeat.forget_backup(s.name) from rowbeat.backup_source s where s.schema_name = p_plugin;
    execute format('drop schema if exists %I cascade', p_plugin);
    if to_regrole(quote_ident(v_role)) is not null then
        execute format('drop owned by %I', v_role);
        begin
            execute format('drop role %I', v_role);
        exception when dependent_objects_still_exist then
            -- A copy of this database has the plugin too.
            null;
        end;
    end if;
    delete from rowbeat.plugin p where p.name = p_plugin;
end $$;
comment on function rowbeat.purge_plugin(text) is 'Drops a plugin''s schema and role and forgets it.';

-- Promises: values of plugins' settings are of their type and keep their rules, also those that are set by plain SQL. SQLSTATEs: 22023.
create or replace function rowbeat.check_plugin_setting() returns trigger
language plpgsql set search_path = '' as $$
declare
    v_text  text := new.value #>> '{}';
begin
    if new.value is null or new.type = 'json' then
        return new;
    end if;
    perform case new.type
        when 'integer' then v_text::bigint::text when 'numeric' then v_text::numeric::text when 'boolean' then v_text::boolean::text
        when 'date' then v_text::date::text when 'timestamp' then v_text::timestamptz::text when 'uuid' then v_text::uuid::text
    end;
    if new.type in ('integer', 'numeric') and (v_text::numeric < (new.rules ->> 'min')::numeric or v_text::numeric > (new.rules ->> 'max')::numeric)
        or length(v_text) > (new.rules ->> 'max_length')::integer or length(v_text) < (new.rules ->> 'min_length')::integer
        or not new.rules -> 'enum' @> jsonb_build_array(new.value) then
        raise exception using errcode = '22023', message = format('%s is no value for setting %s of plugin %s', new.value, new.name, new.plugin),
            detail = 'It must keep ' || new.rules::text;
    end if;
    return new;
exception when invalid_text_representation or numeric_value_out_of_range or datetime_field_overflow or invalid_datetime_format then
    raise exception using errcode = '22023', message = format('%s is no %s, which setting %s of plugin %s is', new.value, new.type, new.name, new.plugin);
end $$;
comment on function rowbeat.check_plugin_setting() is 'Refuses values of plugins'' settings that do not fit.';

create or replace trigger check_plugin_setting before insert or update on rowbeat.plugin_setting
    for each row execute function rowbeat.check_plugin_setting();
