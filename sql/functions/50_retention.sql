-- Retention. Ring tables are emptied slot by slot, by TRUNCATE: no DDL, no partition that could be missing when a user
-- writes, no lock on the parent. Each slot is a day modulo 32.

-- Promises: the slot is empty, or it was busy and is left for the next time (false). The only dynamic statement here; the
--   names come from this file.
-- Locks: the one partition, exclusively, asked for at most a second; nobody writes to a slot that is due.
create or replace function rowbeat.empty_slot(p_ring text, p_slot integer) returns boolean
language plpgsql volatile set search_path = '' set lock_timeout = '1s' as $$
declare
    v_partition  text := p_ring || '_' || to_char(p_slot, 'FM00');
    v_used       boolean;
begin
    execute format('select exists (select from rowbeat.%I)', v_partition) into v_used;
    if v_used then
        execute format('truncate rowbeat.%I', v_partition);
    end if;
    return v_used;
exception when lock_not_available then
    return false;
end $$;
comment on function rowbeat.empty_slot(text, integer) is 'Empties one slot of a ring table; false when it was empty or busy.';

-- A whole number from rowbeat.setting, between bounds.
create or replace function rowbeat.setting_number(p_name text, p_default integer, p_least integer, p_most integer) returns integer
language sql stable set search_path = '' as $$
    select least(greatest(coalesce((select (s.value #>> '{}')::integer from rowbeat.setting s where s.name = p_name), p_default), p_least), p_most)
$$;
comment on function rowbeat.setting_number(text, integer, integer, integer) is 'A whole number from rowbeat.setting.';

-- What a consumer has not read yet, by slot of the log.
create or replace function rowbeat.has_unread(p_consumer rowbeat.change_consumer, p_slot integer) returns boolean
language sql stable set search_path = '' as $$
    select exists (
        select from rowbeat.change c
        where c.slot = p_slot and (c.xid >= pg_snapshot_xmax(p_consumer.position) or c.xid = any (array(select pg_snapshot_xip(p_consumer.position))))
            and (p_consumer.tables is null or c.table_name = any (p_consumer.tables)))
$$;
comment on function rowbeat.has_unread(rowbeat.change_consumer, integer) is 'Whether a slot of the log has changes that a consumer has not read.';

-- The slots of days before yesterday that are beyond so many MiB of the change log, counted from the newest.
create or replace function rowbeat.slots_beyond(p_today date, p_mebibytes bigint) returns integer[]
language sql stable set search_path = '' as $$
    select array(select b.slot from (
        select s.slot, s.age, sum(pg_total_relation_size(format('rowbeat.change_%s', to_char(s.slot, 'FM00'))::regclass)) over (order by s.age) as bytes
        from (select rowbeat.slot_of(p_today - d)::integer as slot, d as age from generate_series(-1, 30) d) s) b
        where b.age > 1 and b.bytes > p_mebibytes * 1048576)
$$;
comment on function rowbeat.slots_beyond(date, bigint) is 'Slots of the change log that do not fit into a size any more.';

-- Promises: days of the change log that are older than change_keep_days (3) and that every consumer has read are gone; so are those older than
--   change_hold_days (14, at most 29: the ring comes round) or, but for today and yesterday, beyond change_hold_mib (no limit), read or not: who
--   had not read them lost his place, and is told so. How many.
-- Called by: prune. Locks: as empty_slot, and the consumers' rows.
create or replace function rowbeat.empty_change_slots(p_today date) returns integer
language plpgsql volatile set search_path = '' as $$
declare
    v_hold     integer := rowbeat.setting_number('change_hold_days', 14, 1, 29);
    v_keep     integer := least(rowbeat.setting_number('change_keep_days', 3, 1, 29), v_hold);
    v_slot     integer;
    v_read     integer[];
    v_over     integer[] := array(select rowbeat.slot_of(p_today - d) from generate_series(v_hold + 1, 30) d)
        || rowbeat.slots_beyond(p_today, rowbeat.setting_number('change_hold_mib', 2147483647, 1, 2147483647));
    v_emptied  integer := 0;
begin
    update rowbeat.change_consumer r set lost_at = rowbeat.now_()
    where r.lost_at is null and exists (select from unnest(v_over) s where rowbeat.has_unread(r, s));
    -- Gathered first: a table that a running query reads cannot be truncated.
    select v_over || array_agg(s.slot) into v_read from (select rowbeat.slot_of(p_today - d)::integer as slot from generate_series(v_keep + 1, 30) d) s
    where s.slot <> all (v_over)
        and not exists (select from rowbeat.change_consumer r where r.lost_at is null and rowbeat.has_unread(r, s.slot));
    foreach v_slot in array v_read loop
        v_emptied := v_emptied + rowbeat.empty_slot('change', v_slot)::integer;
    end loop;
    return v_emptied;
end $$;
comment on function rowbeat.empty_change_slots(date) is 'Empties slots of the change log that are past their time; returns how many.';

-- Promises: what is past its time is gone, soon. Returns how many slots were emptied.
--   finished_task and attempt: rows expire on days from tomorrow to 30 days ahead, so today's slot and yesterday's hold
--     nothing but expired ones.
--   change: see empty_change_slots; failures of watches with the changes they are about.
--   node: those that ended a week ago. unique_hold: those that are over. fire: those older than the setting keep_fires_days (90), but the
--     latest of each schedule; some at a time.
-- Called by: every daemon's pruner. Safe in any number of copies.
create or replace function rowbeat.prune() returns integer
language plpgsql volatile set search_path = '' as $$
declare
    v_today    date := (rowbeat.now_() at time zone 'UTC')::date;
    v_slot     integer;
    v_emptied  integer := 0;
begin
    foreach v_slot in array array[rowbeat.slot_of(v_today), rowbeat.slot_of(v_today - 1)] loop
        v_emptied := v_emptied + rowbeat.empty_slot('finished_task', v_slot)::integer + rowbeat.empty_slot('attempt', v_slot)::integer;
    end loop;
    v_emptied := v_emptied + rowbeat.empty_change_slots(v_today);
    delete from rowbeat.node n
    where coalesce(n.stopped_at, n.lost_at, case n.kind when 'worker' then n.heartbeat_at end) < rowbeat.now_() - interval '7 days'
        and not exists (select from rowbeat.task t where t.claimed_by = n.id);
    delete from rowbeat.unique_hold h where (h.definition, h.unique_key) in (
        select o.definition, o.unique_key from rowbeat.unique_hold o where o.held_until < rowbeat.now_() limit 10000);
    delete from rowbeat.fire f where f.ctid = any (array(
        select o.ctid from rowbeat.fire o
        where o.fired_at < (select rowbeat.now_() - interval '1 day' * coalesce((select k.value::integer from rowbeat.setting k
                where k.name = 'keep_fires_days' and jsonb_typeof(k.value) = 'number'), 90))
            and not exists (select from rowbeat.schedule s where s.name = o.schedule and s.last_fire_at = o.nominal_at)
        limit 100000));
    delete from rowbeat.watch_failure f where f.failed_at < rowbeat.now_() - interval '30 days';
    perform rowbeat.refresh_capture(c.table_name) from rowbeat.capture c;
    return v_emptied;
end $$;
comment on function rowbeat.prune() is 'Forgets what is past its time; returns how many ring slots were emptied.';
