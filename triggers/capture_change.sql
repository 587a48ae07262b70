-- Capture: the trigger functions on watched tables. They write the change log in the writer's own transaction.
--
-- Statement level with transition tables for plain tables with a primary key (one insert per statement, whatever the
-- number of rows); row level for partitioned tables and tables without a key. What is wanted stands in rowbeat.capture.
-- Promises: the writer's statement never fails and never waits because of them, and needs no right on schema rowbeat:
--   hence SECURITY DEFINER with an empty search_path, no user-written expression, and errors turned into a change without
--   images, which says why (or a warning, when even that cannot be written). Without a watch that wants it they are inert.
-- A row is its key: an UPDATE that changes it is the DELETE of one row and the INSERT of another.
-- How they are fast: one statement that touches each row once, as few expressions outside of it as can be (each is set up
--   anew in every transaction), and `offset 0`, without which a row's image would be built again for each mention.
-- The same row has the same image whatever the writer's session is set to: hence the settings, some microseconds for all.
-- Locks: nothing but the new rows of the log; the doorbell key, shared, without waiting.

-- Where a change comes from: the setting rowbeat.origin, of sessions whose login is a member of the role that owns rowbeat.
-- Called by: the capture functions, as which it runs. Nobody is asked for who does not set it.
create or replace function rowbeat.capture_origin() returns text
language sql stable as $$
    select case when pg_catalog.current_setting('rowbeat.origin', true) <> '' and pg_catalog.pg_has_role(session_user, current_user, 'MEMBER')
        then pg_catalog.current_setting('rowbeat.origin', true) end
$$;
comment on function rowbeat.capture_origin() is 'The setting rowbeat.origin, if the session is an operator''s.';

-- The image for the log. A column to leave out that is not there has another name by now: then there is no image at all.
create or replace function rowbeat.omit(p_image jsonb, p_omitted text[]) returns jsonb
language sql immutable parallel safe as $$
    select case when p_omitted = '{}' then p_image when p_image ?& p_omitted then p_image - p_omitted end
$$;
comment on function rowbeat.omit(jsonb, text[]) is 'The image without the columns to leave out.';

-- Promises: what could not be captured leaves a trace. Called by: the capture functions.
create or replace function rowbeat.note_uncaptured(p_table regclass, p_operation text, p_error text) returns void
language plpgsql volatile security definer set search_path = '' as $$
declare
    v_now  timestamptz := rowbeat.now_();
begin
    raise warning 'rowbeat could not capture % on %: %', p_operation, p_table, p_error;
    insert into rowbeat.change (slot, xid, table_name, operation, login_role, actor, origin, at, error)
    values (rowbeat.slot_of((v_now at time zone 'UTC')::date), pg_current_xact_id(), p_table, p_operation, session_user,
        nullif(current_setting('rowbeat.actor', true), ''), rowbeat.capture_origin(), v_now, p_error);
    perform rowbeat.ring('change');
exception when others then
    raise warning 'rowbeat could not note it: %', sqlerrm;
end $$;
comment on function rowbeat.note_uncaptured(regclass, text, text) is 'Logs that changed rows could not be captured.';
revoke execute on function rowbeat.note_uncaptured(regclass, text, text) from public;

create or replace function rowbeat.capture_statement() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set intervalstyle = 'postgres'
    set bytea_output = 'hex' set datestyle = 'ISO' as $$
begin
    if tg_op = 'INSERT' then
        insert into rowbeat.change (slot, xid, table_name, operation, key, new, login_role, actor, origin, at)
        select c.slot, c.xid, c.table_name, tg_op,
            case when c.keys = 1 then jsonb_build_object(c.key, r.image -> c.key) else rowbeat.pick_key(r.image, c.key_columns) end,
            case when c.omits = 0 then r.image else rowbeat.omit(r.image, c.omitted) end, c.login_role, c.actor, c.origin, c.at
        from (
            select x.table_name, x.key_columns, x.key_columns[1] as key, cardinality(x.key_columns) as keys, x.omitted, cardinality(x.omitted) as omits,
                rowbeat.slot_of((n.at at time zone 'UTC')::date) as slot, pg_current_xact_id() as xid, session_user::text as login_role,
                nullif(current_setting('rowbeat.actor', true), '') as actor, rowbeat.capture_origin() as origin, n.at
            from rowbeat.capture x cross join (select rowbeat.now_() as at offset 0) n
            where x.table_name = tg_relid and tg_op = any (x.operations) offset 0
        ) c
        cross join (select to_jsonb(x.*) as image from new_rows x offset 0) r;
    elsif tg_op = 'DELETE' then
        insert into rowbeat.change (slot, xid, table_name, operation, key, old, login_role, actor, origin, at)
        select c.slot, c.xid, c.table_name, tg_op,
            case when c.keys = 1 then jsonb_build_object(c.key, r.image -> c.key) else rowbeat.pick_key(r.image, c.key_columns) end,
            case when c.omits = 0 then r.image else rowbeat.omit(r.image, c.omitted) end, c.login_role, c.actor, c.origin, c.at
        from (
            select x.table_name, x.key_columns, x.key_columns[1] as key, cardinality(x.key_columns) as keys, x.omitted, cardinality(x.omitted) as omits,
                rowbeat.slot_of((n.at at time zone 'UTC')::date) as slot, pg_current_xact_id() as xid, session_user::text as login_role,
                nullif(current_setting('rowbeat.actor', true), '') as actor, rowbeat.capture_origin() as origin, n.at
            from rowbeat.capture x cross join (select rowbeat.now_() as at offset 0) n
            where x.table_name = tg_relid and tg_op = any (x.operations) offset 0
        ) c
        cross join (select to_jsonb(x.*) as image from old_rows x offset 0) r;
    else
        -- A row whose key changed has no partner: it is a DELETE and an INSERT. By outdated names of the key's columns no two rows would
        -- find each other, so these are looked up.
        with c as materialized (
            select x.table_name, x.operations, x.omitted, cardinality(x.omitted) as omits, case
                    when x.key_columns <@ array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = tg_relid and a.attname = any (x.key_columns))
                    then x.key_columns else rowbeat.key_columns(tg_relid) end as key_columns,
                rowbeat.slot_of((n.at at time zone 'UTC')::date) as slot, pg_current_xact_id() as xid, session_user::text as login_role,
                nullif(current_setting('rowbeat.actor', true), '') as actor, rowbeat.capture_origin() as origin, n.at
            from rowbeat.capture x cross join (select rowbeat.now_() as at offset 0) n
            where x.table_name = tg_relid and x.operations && '{INSERT,UPDATE,DELETE}'
        )
        insert into rowbeat.change (slot, xid, table_name, operation, key, old, new, login_role, actor, origin, at)
        select c.slot, c.xid, c.table_name, r.operation, r.key, case when c.omits = 0 then r.old else rowbeat.omit(r.old, c.omitted) end,
            case when c.omits = 0 then r.new else rowbeat.omit(r.new, c.omitted) end, c.login_role, c.actor, c.origin, c.at
        from c cross join (
            select case when o.image is null then 'INSERT' when n.image is null then 'DELETE' else 'UPDATE' end as operation,
                coalesce(n.key, o.key) as key, o.image as old, n.image as new
            from (
                select r.image, rowbeat.pick_key(r.image, c.key_columns) as key from c cross join (select to_jsonb(x.*) as image from old_rows x offset 0) r offset 0
            ) o full join (
                select r.image, rowbeat.pick_key(r.image, c.key_columns) as key from c cross join (select to_jsonb(x.*) as image from new_rows x offset 0) r offset 0
            ) n on n.key = o.key offset 0
        ) r
        where r.operation = any (c.operations);
    end if;
    if found and not pg_try_advisory_xact_lock_shared(1919907682, 1) then
        perform rowbeat.ring('change');
    end if;
    return null;
exception when others then
    perform rowbeat.note_uncaptured(tg_relid, tg_op, sqlerrm);
    return null;
end $$;
comment on function rowbeat.capture_statement() is 'Writes the change log, once per statement.';

create or replace function rowbeat.capture_row() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set intervalstyle = 'postgres'
    set bytea_output = 'hex' set datestyle = 'ISO' as $$
declare
    v_table    regclass := coalesce(pg_partition_root(tg_relid), tg_relid);
    v_capture  rowbeat.capture;
    v_now      timestamptz;
    v_old      jsonb;
    v_new      jsonb;
begin
    select * into v_capture from rowbeat.capture c where c.table_name = v_table;
    if not found or not v_capture.operations && '{INSERT,UPDATE,DELETE}' then
        return null;
    end if;
    v_now := rowbeat.now_();
    v_old := case when tg_op <> 'INSERT' then to_jsonb(old) end;
    v_new := case when tg_op <> 'DELETE' then to_jsonb(new) end;
    insert into rowbeat.change (slot, xid, table_name, operation, key, old, new, login_role, actor, origin, at)
    select rowbeat.slot_of((v_now at time zone 'UTC')::date), pg_current_xact_id(), v_table, r.operation,
        rowbeat.pick_key(coalesce(r.new, r.old), v_capture.key_columns), rowbeat.omit(r.old, v_capture.omitted), rowbeat.omit(r.new, v_capture.omitted),
        session_user, nullif(current_setting('rowbeat.actor', true), ''), rowbeat.capture_origin(), v_now
    from (
        select p.old_key is distinct from p.new_key as moved
        from (select rowbeat.pick_key(v_old, v_capture.key_columns) as old_key, rowbeat.pick_key(v_new, v_capture.key_columns) as new_key) p
    ) k
    cross join lateral (values (tg_op, v_old, v_new, tg_op <> 'UPDATE' or not k.moved), ('DELETE', v_old, null, tg_op = 'UPDATE' and k.moved),
        ('INSERT', null, v_new, tg_op = 'UPDATE' and k.moved)) r (operation, old, new, applies)
    where r.applies and r.operation = any (v_capture.operations);
    if found and not pg_try_advisory_xact_lock_shared(1919907682, 1) then
        perform rowbeat.ring('change');
    end if;
    return null;
exception when others then
    perform rowbeat.note_uncaptured(coalesce(pg_partition_root(tg_relid), tg_relid), tg_op, sqlerrm);
    return null;
end $$;
comment on function rowbeat.capture_row() is 'Writes the change log row by row; of a partitioned table under the name of its root.';

create or replace function rowbeat.capture_truncate() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    insert into rowbeat.change (slot, xid, table_name, operation, login_role, actor, origin, at)
    select rowbeat.slot_of((n.at at time zone 'UTC')::date), pg_current_xact_id(), tg_relid, tg_op,
        session_user, nullif(current_setting('rowbeat.actor', true), ''), rowbeat.capture_origin(), n.at
    from rowbeat.capture c cross join (select rowbeat.now_() as at) n where c.table_name = tg_relid and tg_op = any (c.operations);
    if found then
        perform rowbeat.ring('change');
    end if;
    return null;
exception when others then
    perform rowbeat.note_uncaptured(tg_relid, tg_op, sqlerrm);
    return null;
end $$;
comment on function rowbeat.capture_truncate() is 'Writes one change for a TRUNCATE.';

drop function if exists rowbeat.is_watched(regclass, text);
