-- Capture: the trigger functions on watched tables. They write the change log in the writer's own transaction.
--
-- Statement level with transition tables for plain tables with a primary key (one insert per statement, whatever the
-- number of rows); row level for partitioned tables and tables without a key. The arguments are the key's columns.
-- Promises: the writer's statement never fails and never waits because of them, and needs no right on schema rowbeat:
--   hence SECURITY DEFINER with an empty search_path, no user-written expression, and errors turned into warnings.
--   A watch that is gone or disabled leaves them inert.
-- Locks: nothing but the new rows of the log; the doorbell key, shared, without waiting.

-- Whether any enabled watch wants this operation on this table.
create or replace function rowbeat.is_watched(p_table regclass, p_operation text) returns boolean
language sql stable security definer set search_path = '' as $$
    select exists (select from rowbeat.watch w
        where w.table_name = p_table and w.enabled and p_operation = any (w.operations))
$$;
comment on function rowbeat.is_watched(regclass, text) is 'Whether an enabled watch wants this operation on this table.';
revoke execute on function rowbeat.is_watched(regclass, text) from public;

create or replace function rowbeat.capture_statement() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
    v_now   timestamptz := rowbeat.now_();
    v_slot  smallint := rowbeat.slot_of((rowbeat.now_() at time zone 'UTC')::date);
    v_key   text[] := tg_argv::text[];
begin
    if not rowbeat.is_watched(tg_relid, tg_op) then
        return null;
    end if;
    if tg_op = 'INSERT' then
        insert into rowbeat.change (slot, xid, table_name, operation, key, new, login_role, actor, at)
        select v_slot, pg_current_xact_id(), tg_relid, tg_op, rowbeat.pick(r.image, v_key), r.image,
            session_user, nullif(current_setting('rowbeat.actor', true), ''), v_now
        from (select to_jsonb(n) as image from new_rows n) r;
    elsif tg_op = 'DELETE' then
        insert into rowbeat.change (slot, xid, table_name, operation, key, old, login_role, actor, at)
        select v_slot, pg_current_xact_id(), tg_relid, tg_op, rowbeat.pick(r.image, v_key), r.image,
            session_user, nullif(current_setting('rowbeat.actor', true), ''), v_now
        from (select to_jsonb(o) as image from old_rows o) r;
    elsif tg_op = 'UPDATE' then
        -- A row whose key changed has no partner: it is a DELETE and an INSERT.
        insert into rowbeat.change (slot, xid, table_name, operation, key, old, new, login_role, actor, at)
        select v_slot, pg_current_xact_id(), tg_relid,
            case when o.image is null then 'INSERT' when n.image is null then 'DELETE' else 'UPDATE' end,
            coalesce(n.key, o.key), o.image, n.image,
            session_user, nullif(current_setting('rowbeat.actor', true), ''), v_now
        from (select r.image, rowbeat.pick(r.image, v_key) as key from (select to_jsonb(x) as image from old_rows x) r) o
        full join (select r.image, rowbeat.pick(r.image, v_key) as key from (select to_jsonb(x) as image from new_rows x) r) n
            on n.key = o.key;
    end if;
    if found then
        perform rowbeat.ring('change');
    end if;
    return null;
exception when others then
    raise warning 'rowbeat could not capture % on %: %', tg_op, tg_relid::regclass, sqlerrm;
    return null;
end $$;
comment on function rowbeat.capture_statement() is 'Writes the change log, once per statement; the arguments are the key''s columns.';

create or replace function rowbeat.capture_row() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
    v_table  regclass := coalesce(pg_partition_root(tg_relid), tg_relid);
    v_now    timestamptz := rowbeat.now_();
    v_old    jsonb := case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end;
    v_new    jsonb := case when tg_op in ('INSERT', 'UPDATE') then to_jsonb(new) end;
begin
    if rowbeat.is_watched(v_table, tg_op) then
        insert into rowbeat.change (slot, xid, table_name, operation, key, old, new, login_role, actor, at)
        values (rowbeat.slot_of((v_now at time zone 'UTC')::date), pg_current_xact_id(), v_table, tg_op,
            rowbeat.pick(coalesce(v_new, v_old), tg_argv::text[]), v_old, v_new,
            session_user, nullif(current_setting('rowbeat.actor', true), ''), v_now);
        perform rowbeat.ring('change');
    end if;
    return null;
exception when others then
    raise warning 'rowbeat could not capture % on %: %', tg_op, tg_relid::regclass, sqlerrm;
    return null;
end $$;
comment on function rowbeat.capture_row() is 'Writes the change log row by row; the arguments are the key''s columns.';

create or replace function rowbeat.capture_truncate() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
    v_now timestamptz := rowbeat.now_();
begin
    if rowbeat.is_watched(tg_relid, tg_op) then
        insert into rowbeat.change (slot, xid, table_name, operation, login_role, actor, at)
        values (rowbeat.slot_of((v_now at time zone 'UTC')::date), pg_current_xact_id(), tg_relid, tg_op,
            session_user, nullif(current_setting('rowbeat.actor', true), ''), v_now);
        perform rowbeat.ring('change');
    end if;
    return null;
exception when others then
    raise warning 'rowbeat could not capture % on %: %', tg_op, tg_relid::regclass, sqlerrm;
    return null;
end $$;
comment on function rowbeat.capture_truncate() is 'Writes one change for a TRUNCATE.';
