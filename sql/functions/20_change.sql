-- The change log: how it is read, and how the router makes tasks of it. Capture is in triggers/, watches are in 19_watch.sql.

-- Whether a slot of the log holds anything that became visible between a position, given by its parts, and p_target. Each slot has a statement of its
-- own: one on the parent would lock and open all 32 of them, twenty times the cost.
do $generate$
begin
    execute format($function$
        create or replace function rowbeat.slot_has_changes(p_slot smallint, p_xmax xid8, p_old xid8[], p_target pg_snapshot) returns boolean
        language plpgsql stable set search_path = '' set enable_seqscan = off set plan_cache_mode = force_generic_plan as $body$
        begin
            case p_slot
                %s
            end case;
        end $body$$function$, (
        select string_agg(format($statement$when %s then return
                    exists (select from rowbeat.change_%2$s c where c.xid >= p_xmax and pg_visible_in_snapshot(c.xid, p_target))
                    or p_old <> '{}' and exists (select from rowbeat.change_%2$s c where c.xid = any (p_old) and pg_visible_in_snapshot(c.xid, p_target));$statement$,
            s, to_char(s, 'FM00')), e'\n                ')
        from generate_series(0, 31) s));
end $generate$;
comment on function rowbeat.slot_has_changes(smallint, xid8, xid8[], pg_snapshot) is 'Whether a slot of the change log holds something new.';

-- Promises: false: nothing that became visible between the consumer's position and p_target is in the log. Looks only into the slots of days in
--   which it may have been written.
-- Called by: read_changes, which daemons do every few milliseconds while they are busy.
create or replace function rowbeat.may_have_changes(p_reader rowbeat.change_consumer, p_target pg_snapshot) returns boolean
language plpgsql stable set search_path = '' as $$
declare
    v_now   timestamptz := rowbeat.now_();
    v_old   xid8[] := array(select pg_snapshot_xip(p_reader.position));
    v_from  date := (least(p_reader.since, v_now) at time zone 'UTC')::date - 1;
    v_days  integer := (greatest(p_reader.since, v_now) at time zone 'UTC')::date + 1 - v_from;
begin
    -- Until the position has moved twice nobody knows since when its transactions are under way.
    if p_reader.since is null or v_days > 31 then
        return true;
    end if;
    for i in 0..v_days loop
        if rowbeat.slot_has_changes(rowbeat.slot_of(v_from + i), pg_snapshot_xmax(p_reader.position), v_old, p_target) then
            return true;
        end if;
    end loop;
    return false;
end $$;
comment on function rowbeat.may_have_changes(rowbeat.change_consumer, pg_snapshot) is 'Whether there may be something new for a consumer of the change log.';

-- A snapshot in which this very transaction is in progress, which the server leaves out of its own: what it writes later is not read yet.
create or replace function rowbeat.open_snapshot(p_snapshot pg_snapshot) returns pg_snapshot
language sql stable set search_path = '' as $$
    select case when x.own < pg_snapshot_xmax(p_snapshot) then (
        select format('%s:%s:%s', least(pg_snapshot_xmin(p_snapshot), x.own), pg_snapshot_xmax(p_snapshot), string_agg(i.xid::text, ',' order by i.xid))::pg_snapshot
        from (select pg_snapshot_xip(p_snapshot) as xid union select x.own) i) else p_snapshot end
    from (select pg_current_xact_id_if_assigned() as own) x
$$;
comment on function rowbeat.open_snapshot(pg_snapshot) is 'A snapshot in which this very transaction is in progress.';

-- Promises: the next piece of what became visible since the consumer's position, in order of writing; the position moves in
--   the same transaction. complete: there was no more when it was read. Nothing (null) when another session has the consumer.
-- How: a position is a snapshot. The difference to a newer one is what was in progress then, or began later, and is visible now. As a
--   rule that is little: it is found by the transactions' numbers. What is more than a piece is read along the numbers of the changes,
--   up to the snapshot that was taken at its beginning; rows never change, so that can take any number of transactions. Each of the
--   statements walks along an index and stops, under any plan.
-- Called by: route_changes, consume. Locks: the consumer's row; p_wait: waits for it.
create or replace function rowbeat.read_changes(
    p_consumer text, p_limit integer, p_wait boolean, out seqs bigint[], out slots smallint[], out complete boolean
)
language plpgsql volatile set search_path = '' set enable_seqscan = off as $$
declare
    v_reader  rowbeat.change_consumer;
    v_old     xid8[];
    v_more    boolean := false;
begin
    if p_wait then
        select * into v_reader from rowbeat.change_consumer c where c.name = p_consumer for update;
    else
        select * into v_reader from rowbeat.change_consumer c where c.name = p_consumer for update skip locked;
    end if;
    if not found then
        return;
    end if;
    v_old := array(select pg_snapshot_xip(v_reader.position));
    if v_reader.target is null then
        v_reader.target := pg_current_snapshot();
        if pg_current_xact_id_if_assigned() < pg_snapshot_xmax(v_reader.target) then
            v_reader.target := rowbeat.open_snapshot(v_reader.target);
        end if;
        if not rowbeat.may_have_changes(v_reader, v_reader.target) then
            seqs := '{}';
            slots := '{}';
        else
            select coalesce(array_agg(d.seq order by d.seq), '{}'), coalesce(array_agg(distinct d.slot), '{}') into seqs, slots
            from (
                (select c.seq, c.slot from rowbeat.change c
                 where c.xid >= pg_snapshot_xmax(v_reader.position) and pg_visible_in_snapshot(c.xid, v_reader.target)
                    and (v_reader.tables is null or c.table_name = any (v_reader.tables))
                    and (v_reader.own_xid is null or c.xid <> v_reader.own_xid or c.seq > v_reader.own_seq)
                 order by c.xid, c.seq limit p_limit + 1)
                union all
                (select c.seq, c.slot from rowbeat.change c
                 where c.xid = any (v_old) and pg_visible_in_snapshot(c.xid, v_reader.target)
                    and (v_reader.tables is null or c.table_name = any (v_reader.tables))
                    and (v_reader.own_xid is null or c.xid <> v_reader.own_xid or c.seq > v_reader.own_seq)
                 limit p_limit + 1)
            ) d;
        end if;
        v_more := cardinality(seqs) > p_limit;
        if v_more then
            select min(c.seq) - 1 into v_reader.after_seq from rowbeat.change c
            where (c.xid >= pg_snapshot_xmax(v_reader.position) or c.xid = any (v_old)) and pg_visible_in_snapshot(c.xid, v_reader.target);
        end if;
    else
        v_more := true;
    end if;
    if v_more then
        select coalesce(array_agg(d.seq order by d.seq), '{}'), coalesce(array_agg(distinct d.slot), '{}') into seqs, slots
        from (
            select c.seq, c.slot from rowbeat.change c
            where c.seq > v_reader.after_seq and (c.xid >= pg_snapshot_xmax(v_reader.position) or c.xid = any (v_old))
                and pg_visible_in_snapshot(c.xid, v_reader.target)
                and (v_reader.tables is null or c.table_name = any (v_reader.tables))
                and (v_reader.own_xid is null or c.xid <> v_reader.own_xid or c.seq > v_reader.own_seq)
            order by c.seq limit p_limit
        ) d;
        v_more := cardinality(seqs) = p_limit;
    end if;
    complete := not v_more;
    if v_more then
        update rowbeat.change_consumer c set target = v_reader.target, after_seq = seqs[p_limit], read_at = rowbeat.now_() where c.name = p_consumer;
    elsif seqs <> '{}' or v_reader.after_seq > 0 or v_reader.read_at < rowbeat.now_() - interval '1 minute' then
        -- An idle reader writes its position now and then: the older it is, the longer its list of transactions that were in progress.
        -- Whoever is under way in the new position and was not yet in the old one has written since that one was taken.
        update rowbeat.change_consumer c
        set position = v_reader.target, target = null, after_seq = 0, read_at = rowbeat.now_(),
            since = case when v_reader.after_seq = 0
                and not exists (select from pg_snapshot_xip(v_reader.target) x where x < pg_snapshot_xmax(v_reader.position))
                then v_reader.read_at else v_reader.since end
        where c.name = p_consumer;
    end if;
end $$;
comment on function rowbeat.read_changes(text, integer, boolean) is 'The next changes of a consumer, whose position moves behind them.';

-- Promises: the next piece of what became visible since the router's position has become tasks: each committed change once per
--   watch that it concerns, none of a rolled-back one, whatever the order of commits; what a watch could not do with one is noted.
--   Returns how many changes were read; 0: nothing now.
-- Called by: every daemon's router. Locks: the consumer's row, skipped when another router holds it (returns 0); a task whose unique
--   key somebody is just enqueuing, for a second: then that is noted as well, and tried again.
create or replace function rowbeat.route_changes(p_limit integer default 1000) returns integer
language plpgsql volatile set search_path = '' set lock_timeout = '1s' as $$
declare
    v_piece  record;
    v_watch  rowbeat.watch;
begin
    select * into v_piece from rowbeat.read_changes('router', p_limit, false);
    if v_piece.seqs is null then
        return 0;
    end if;
    -- Not planned at all where there is nothing to do, as a rule.
    if v_piece.seqs <> '{}' then
        for v_watch in
            select w.* from rowbeat.watch w
            where w.enabled and w.table_name in (
                select c.table_name from rowbeat.change c where c.seq = any (v_piece.seqs) and c.slot = any (v_piece.slots))
            order by w.name
        loop
            perform rowbeat.route_to_watch(v_watch, v_piece.seqs, v_piece.slots, v_watch.created_at, false);
        end loop;
    end if;
    if v_piece.complete then
        if exists (select from rowbeat.change_group) then
            begin
                perform rowbeat.enqueue_groups(null);
            exception when lock_not_available or deadlock_detected then
                -- Somebody is just enqueuing with the unique key of one: they stay for the next look.
                null;
            end;
        end if;
        if v_piece.seqs = '{}' then
            return case when exists (select from rowbeat.watch_failure) then rowbeat.retry_failures(null, 100, true) else 0 end;
        end if;
    end if;
    return cardinality(v_piece.seqs);
end $$;
comment on function rowbeat.route_changes(integer) is 'Turns the next piece of the change log into tasks; returns how many changes it read.';

-- Promises: those of the changes that concern the watch have become its tasks, or part of its groups, or are noted as failures: one that
--   raises is found by halving, and the others are not affected. Returns how many tasks (of groups: changes).
-- Called by: route_changes, replays. Locks: the watch's row when something failed.
create or replace function rowbeat.route_to_watch(
    p_watch rowbeat.watch, p_seqs bigint[], p_slots smallint[], p_since timestamptz, p_replayed boolean
) returns integer
language plpgsql volatile set search_path = '' as $$
declare
    v_begun  timestamptz := clock_timestamp();
    v_half   integer;
    v_lost   bigint[];
begin
    -- Without images there is nothing to look at.
    v_lost := array(select c.seq from rowbeat.change c where c.seq = any (p_seqs) and c.slot = any (p_slots) and c.table_name = p_watch.table_name
        and (c.operation = any (p_watch.operations) or c.error is not null) and c.at >= p_since
        and (c.error is not null or c.operation in ('INSERT', 'UPDATE') and c.new is null or c.operation in ('UPDATE', 'DELETE') and c.old is null));
    if v_lost <> '{}' then
        perform rowbeat.fail_watch(p_watch.name, v_lost, p_slots, 'XX000', coalesce(
            (select 'rows could not be captured: ' || c.error from rowbeat.change c where c.seq = any (v_lost) and c.slot = any (p_slots) and c.error is not null limit 1),
            'rows were not logged: a column to leave out has another name by now'));
        p_seqs := array(select s from unnest(p_seqs) s where s <> all (v_lost) order by s);
    end if;
    if p_watch.suspended_at is not null and p_seqs <> '{}' then
        perform rowbeat.fail_watch(p_watch.name, p_seqs, p_slots, '57014', 'not evaluated: the watch is suspended because it took too long');
        return 0;
    end if;
    begin
        return rowbeat.enqueue_changes(p_watch, p_seqs, p_slots, p_since, p_replayed);
    exception
        when query_canceled then
            -- Within the session's statement_timeout nothing else may be kept waiting once more.
            if clock_timestamp() < v_begun + interval '3 seconds' then
                raise;
            end if;
            update rowbeat.watch w set suspended_at = rowbeat.now_() where w.name = p_watch.name;
            perform rowbeat.fail_watch(p_watch.name, p_seqs, p_slots, sqlstate, 'it took too long, so it is suspended: edit the watch, then replay');
            return 0;
        when others then
            if cardinality(p_seqs) <= 1 then
                perform rowbeat.fail_watch(p_watch.name, p_seqs, p_slots, sqlstate, sqlerrm);
                return 0;
            end if;
    end;
    v_half := greatest(cardinality(p_seqs) / 2, 1);
    return rowbeat.route_to_watch(p_watch, p_seqs[:v_half], p_slots, p_since, p_replayed)
        + rowbeat.route_to_watch(p_watch, p_seqs[v_half + 1:], p_slots, p_since, p_replayed);
end $$;
comment on function rowbeat.route_to_watch(rowbeat.watch, bigint[], smallint[], timestamptz, boolean) is 'Makes tasks of the changes that concern a watch, and notes what failed.';

-- Promises: the failure is on record, with the watch and for a replay. Called by: route_to_watch. Locks: the watch's row.
create or replace function rowbeat.fail_watch(p_watch text, p_seqs bigint[], p_slots smallint[], p_sqlstate text, p_error text) returns void
language sql volatile set search_path = '' as $$
    insert into rowbeat.watch_failure (watch, seqs, slots, sqlstate, error, failed_at)
    values (p_watch, p_seqs, p_slots, p_sqlstate, p_error, rowbeat.now_());
    update rowbeat.watch w set last_error = p_error, last_error_at = rowbeat.now_() where w.name = p_watch
$$;
comment on function rowbeat.fail_watch(text, bigint[], smallint[], text, text) is 'Notes changes that a watch could not make a task of.';

-- The table's name; one that is gone keeps its last one.
create or replace function rowbeat.live_name(p_watch rowbeat.watch) returns text
language sql stable set search_path = '' as $$
    select case when exists (select from pg_catalog.pg_class c where c.oid = p_watch.table_name) then p_watch.table_name::text else p_watch.known_as end
$$;
comment on function rowbeat.live_name(rowbeat.watch) is 'Name of a watch''s table, also when it is gone.';

-- The usual payload of a change.
create or replace function rowbeat.change_document(p_watch rowbeat.watch, p_change rowbeat.change) returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object('watch', p_watch.name, 'table', rowbeat.live_name(p_watch), 'operation', p_change.operation,
        'key', rowbeat.live_key(p_change),
        'old', p_change.old - p_watch.exclude, 'new', p_change.new - p_watch.exclude, 'session_user', p_change.login_role,
        'actor', p_change.actor, 'at', p_change.at, 'change', p_change.seq)
        || case when p_change.origin is null then '{}' else jsonb_build_object('origin', p_change.origin) end
$$;
comment on function rowbeat.change_document(rowbeat.watch, rowbeat.change) is 'What a task of a watch gets of a change.';

-- Promises: tasks for those of the changes that concern the watch, in order of writing; with a unique key the last change of a key counts, and
--   a task that still waits with it gets that one's payload. All or nothing. Returns how many changes concerned it.
-- Called by: route_to_watch. Locks: waiting tasks with the same unique keys. SQLSTATEs: whatever the watch's expressions raise.
create or replace function rowbeat.enqueue_changes(
    p_watch rowbeat.watch, p_seqs bigint[], p_slots smallint[], p_since timestamptz, p_replayed boolean
) returns integer
language plpgsql volatile set search_path = '' as $$
declare
    v_cause  jsonb := jsonb_build_object('kind', 'watch', 'name', p_watch.name)
        || case when p_replayed then '{"replayed": true}'::jsonb else '{}' end;
    v_made   integer;
begin
    if p_watch.grain <> 'row' then
        return rowbeat.gather_changes(p_watch, p_seqs, p_slots, p_since, p_replayed);
    elsif p_watch.unique_key is null and p_watch.debounce is null then
        insert into rowbeat.task (definition, payload, serial_key, cause)
        select p_watch.definition, coalesce(v.payload, rowbeat.change_document(p_watch, c)), v.serial_key, v_cause || jsonb_build_object('change', c.seq)
        from rowbeat.concerned(p_watch, p_seqs, p_slots, p_since) v
        join rowbeat.change c on c.seq = v.seq and c.seq = any (p_seqs) and c.slot = any (p_slots)
        order by c.seq;
        get diagnostics v_made = row_count;
        return v_made;
    end if;
    with concerned as materialized (
        select c.seq, coalesce(v.payload, rowbeat.change_document(p_watch, c)) as payload, v.serial_key,
            case when p_watch.unique_key is null then format('%s %s', p_watch.name, c.key) else v.unique_key end as unique_key
        from rowbeat.concerned(p_watch, p_seqs, p_slots, p_since) v
        join rowbeat.change c on c.seq = v.seq and c.seq = any (p_seqs) and c.slot = any (p_slots)
    ), last as (
        select k.* from concerned k where k.unique_key is null
            or k.seq = (select max(l.seq) from concerned l where l.unique_key = k.unique_key)
    ), made as (
        insert into rowbeat.task as t (definition, payload, run_at, unique_key, serial_key, cause)
        select p_watch.definition, l.payload, rowbeat.now_() + case when l.unique_key is not null then p_watch.debounce end, l.unique_key, l.serial_key,
            v_cause || jsonb_build_object('change', l.seq)
        from last l order by l.seq
        on conflict (definition, unique_key) where unique_key is not null do update
        set payload = excluded.payload, cause = excluded.cause where t.state = 'waiting'
        returning 1
    )
    select (select count(*) from concerned), (select count(*) from last) = (select count(*) from made) into v_made, p_replayed;
    if not p_replayed then
        raise exception 'a running task holds the unique key' using errcode = 'RB005',
            hint = format('Set unique_until of definition "%s" to start.', p_watch.definition);
    end if;
    return v_made;
end $$;
comment on function rowbeat.enqueue_changes(rowbeat.watch, bigint[], smallint[], timestamptz, boolean) is 'Enqueues tasks for the changes that concern a watch.';

-- How much of a group stands in its payload: so many changes, so many bytes.
create or replace function rowbeat.group_bounds(out changes integer, out bytes integer)
language sql immutable as $$ select 100, 65536 $$;
comment on function rowbeat.group_bounds() is 'How much of a group stands in its payload.';

-- Promises: the changes that concern the watch are counted in their group, statement or transaction, and the first of them stand in it.
--   Returns how many. A statement is told by the command number that the server gave the log's rows.
-- Called by: enqueue_changes.
create or replace function rowbeat.gather_changes(
    p_watch rowbeat.watch, p_seqs bigint[], p_slots smallint[], p_since timestamptz, p_replayed boolean
) returns integer
language sql volatile set search_path = '' as $$
    with concerned as materialized (
        select c.seq, c.xid, case when p_watch.grain = 'statement' then c.cmin::text else '' end as statement, c.operation, c.login_role, c.actor, c.at,
            v.serial_key, coalesce(v.payload, rowbeat.change_document(p_watch, c) - array['watch', 'table', 'session_user', 'actor']) as document
        from rowbeat.concerned(p_watch, p_seqs, p_slots, p_since) v
        join rowbeat.change c on c.seq = v.seq and c.seq = any (p_seqs) and c.slot = any (p_slots)
    ), measured as (
        select k.*, row_number() over g as n, sum(octet_length(k.document::text)) over g as bytes from concerned k
        window g as (partition by k.xid, k.statement order by k.seq)
    ), gathered as (
        insert into rowbeat.change_group as g (watch, replayed, xid, statement, count, inserts, updates, deletes, truncates, changes, first_seq, last_seq,
            serial_key, login_role, actor, at)
        select p_watch.name, p_replayed, m.xid, m.statement, count(*), count(*) filter (where m.operation = 'INSERT'),
            count(*) filter (where m.operation = 'UPDATE'), count(*) filter (where m.operation = 'DELETE'), count(*) filter (where m.operation = 'TRUNCATE'),
            coalesce(jsonb_agg(m.document order by m.seq) filter (where m.n <= b.changes and m.bytes <= b.bytes), '[]'), min(m.seq), max(m.seq),
            (array_agg(m.serial_key order by m.seq))[1], (array_agg(m.login_role order by m.seq))[1], (array_agg(m.actor order by m.seq))[1], min(m.at)
        from measured m cross join rowbeat.group_bounds() b
        group by m.xid, m.statement
        on conflict (watch, replayed, xid, statement) do update
        set count = g.count + excluded.count, inserts = g.inserts + excluded.inserts, updates = g.updates + excluded.updates,
            deletes = g.deletes + excluded.deletes, truncates = g.truncates + excluded.truncates, last_seq = excluded.last_seq,
            changes = case when jsonb_array_length(g.changes) = g.count and octet_length(g.changes::text) < (rowbeat.group_bounds()).bytes
                then g.changes || excluded.changes else g.changes end
    )
    select count(*)::integer from concerned
$$;
comment on function rowbeat.gather_changes(rowbeat.watch, bigint[], smallint[], timestamptz, boolean) is 'Counts changes in the groups of a watch.';

-- Promises: each group that was gathered is a task: of the router (p_watch null), or of the replay of a watch. The payload holds the first
--   changes, at most so many; count and truncated say how many there are. With a unique key the last group counts, and a task that still
--   waits with it gets that one's payload. Returns how many tasks.
-- Called by: route_changes and replays, when all of a difference has been read. Locks: waiting tasks with the same unique keys.
create or replace function rowbeat.enqueue_groups(p_watch text) returns integer
language plpgsql volatile set search_path = '' as $$
declare
    v_made  integer;
begin
    with gathered as (
        delete from rowbeat.change_group g where g.replayed = (p_watch is not null) and g.watch = coalesce(p_watch, g.watch) returning g.*
    ), documents as (
        select w.definition, w.name, g.first_seq, g.serial_key, w.debounce,
            jsonb_build_object('watch', w.name, 'table', rowbeat.live_name(w), 'grain', w.grain, 'transaction', g.xid::text, 'count', g.count,
                'operations', jsonb_strip_nulls(jsonb_build_object('INSERT', nullif(g.inserts, 0), 'UPDATE', nullif(g.updates, 0),
                    'DELETE', nullif(g.deletes, 0), 'TRUNCATE', nullif(g.truncates, 0))),
                'changes', k.changes, 'truncated', jsonb_array_length(k.changes) < g.count, 'first_change', g.first_seq, 'last_change', g.last_seq,
                'session_user', g.login_role, 'actor', g.actor, 'at', g.at) as payload,
            jsonb_build_object('kind', 'watch', 'name', w.name, 'change', g.first_seq) || case when g.replayed then '{"replayed": true}'::jsonb else '{}' end as cause,
            -- A definition that has come to hold its keys until the end would swallow groups: then each is a task.
            case when d.unique_until = 'start' then rowbeat.constant_key(w.unique_key) end as unique_key,
            row_number() over (partition by w.definition, w.unique_key order by g.first_seq desc, w.name desc) as nth_last
        from gathered g
        join rowbeat.watch w on w.name = g.watch
        join rowbeat.task_definition d on d.name = w.definition
        cross join lateral (select jsonb_path_query_array(g.changes, format('$[0 to %s]', (rowbeat.group_bounds()).changes - 1)::jsonpath) as changes) k
    )
    insert into rowbeat.task as t (definition, payload, run_at, unique_key, serial_key, cause)
    select o.definition, o.payload, rowbeat.now_() + o.debounce, o.unique_key, o.serial_key, o.cause
    from documents o
    where o.unique_key is null or o.nth_last = 1
    order by o.first_seq, o.name
    on conflict (definition, unique_key) where unique_key is not null do update
    set payload = excluded.payload, cause = excluded.cause where t.state = 'waiting';
    get diagnostics v_made = row_count;
    return v_made;
end $$;
comment on function rowbeat.enqueue_groups(text) is 'Makes tasks of the statements and transactions that were gathered.';
