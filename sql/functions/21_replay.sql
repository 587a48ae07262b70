-- Replays: changes that are still in the log become tasks of a watch once more, or at last.

-- Promises: the oldest failures of a watch (null: of all) are tried again; what fails again is noted anew. Returns how many changes were tried.
--   p_last_id: only those up to this one. p_passing: only those for which a lock was not free, or which were in a deadlock.
-- Called by: the router while it is idle, replay_failures. Locks: the failures' rows, skipped when somebody has them.
create or replace function rowbeat.retry_failures(p_watch text, p_limit integer, p_passing boolean, p_last_id bigint default null) returns integer
language plpgsql volatile set search_path = '' as $$
declare
    v_failure  rowbeat.watch_failure;
    v_watch    rowbeat.watch;
    v_tried    integer := 0;
begin
    for v_failure in
        delete from rowbeat.watch_failure f where f.id in (
            select o.id from rowbeat.watch_failure o
            where (p_watch is null or o.watch = p_watch) and (p_last_id is null or o.id <= p_last_id) and (not p_passing or o.sqlstate in ('55P03', '40P01', '40001'))
            order by o.id limit p_limit for update skip locked)
        returning f.*
    loop
        select * into v_watch from rowbeat.watch w where w.name = v_failure.watch;
        perform rowbeat.route_to_watch(v_watch, v_failure.seqs, v_failure.slots, '-infinity', not p_passing);
        v_tried := v_tried + cardinality(v_failure.seqs);
    end loop;
    if v_tried > 0 then
        perform rowbeat.enqueue_groups(case when p_passing then null else p_watch end);
        update rowbeat.watch w set last_error = null, last_error_at = null
        where w.name = coalesce(p_watch, w.name) and w.last_error is not null
            and not exists (select from rowbeat.watch_failure f where f.watch = w.name);
    end if;
    return v_tried;
end $$;
comment on function rowbeat.retry_failures(text, integer, boolean, bigint) is 'Tries again what a watch could not make tasks of; returns how many changes.';

-- Whether the router has read a change.
create or replace function rowbeat.is_routed(p_change rowbeat.change) returns boolean
language sql stable set search_path = '' as $$
    select pg_visible_in_snapshot(p_change.xid, r.position) or p_change.seq <= r.after_seq and pg_visible_in_snapshot(p_change.xid, r.target)
    from rowbeat.change_consumer r where r.name = 'router'
$$;
comment on function rowbeat.is_routed(rowbeat.change) is 'Whether the router has read a change.';

-- What a replay would look at: how many changes of the watch's table within the time, and which number the last one has.
create or replace function rowbeat.count_replay(p_watch text, p_from timestamptz, p_to timestamptz, out changes bigint, out last_seq bigint)
language sql stable set search_path = '' as $$
    select count(*), max(c.seq) from rowbeat.watch w join rowbeat.change c on c.table_name = w.table_name
    where w.name = p_watch and c.at >= p_from and c.at < p_to and rowbeat.is_routed(c)
$$;
comment on function rowbeat.count_replay(text, timestamptz, timestamptz) is 'How many changes a replay would look at.';

-- Promises: the next piece of the changes of p_from <= at < p_to that the router has read is routed to this watch once more; with p_dry_run it
--   is only counted. Changes from before the watch count as well. read, made (of groups: their changes), failed, and where to go on.
-- Called by: rowbeat change replay, until read < p_limit. Safe to repeat: no, each time makes tasks.
create or replace function rowbeat.replay_changes(
    p_watch text, p_from timestamptz, p_to timestamptz, p_after_seq bigint default 0, p_limit integer default 1000, p_dry_run boolean default false,
    out read integer, out made integer, out failed integer, out last_seq bigint
)
language plpgsql volatile set search_path = '' as $$
declare
    v_watch    rowbeat.watch;
    v_piece    record;
    v_failure  bigint := (select max(f.id) from rowbeat.watch_failure f);
begin
    select * into v_watch from rowbeat.watch w where w.name = p_watch;
    if not found then
        raise exception 'there is no watch "%"', p_watch using errcode = '22023', hint = 'See rowbeat.watches for those that are.';
    end if;
    if p_after_seq = 0 then
        delete from rowbeat.change_group g where g.watch = p_watch and g.replayed;
    end if;
    select array_agg(c.seq order by c.seq) as seqs, array_agg(distinct c.slot) as slots into v_piece from (
        select c.seq, c.slot from rowbeat.change c
        where c.seq > p_after_seq and c.table_name = v_watch.table_name and c.at >= p_from and c.at < p_to and rowbeat.is_routed(c)
        order by c.seq limit p_limit
    ) c;
    read := coalesce(cardinality(v_piece.seqs), 0);
    last_seq := v_piece.seqs[read];
    made := 0;
    failed := 0;
    begin
        if read > 0 then
            made := rowbeat.route_to_watch(v_watch, v_piece.seqs, v_piece.slots, '-infinity', true);
            select coalesce(sum(cardinality(f.seqs)), 0) into failed from rowbeat.watch_failure f
            where f.watch = p_watch and f.id > coalesce(v_failure, 0);
        end if;
        if read < p_limit then
            perform rowbeat.enqueue_groups(p_watch);
        end if;
        if p_dry_run then
            raise exception using errcode = 'DRY00';
        end if;
    exception when sqlstate 'DRY00' then
        -- All of it is undone; what was counted stays.
        null;
    end;
end $$;
comment on function rowbeat.replay_changes(text, timestamptz, timestamptz, bigint, integer, boolean) is 'Routes changes to a watch once more, a piece at a time.';
