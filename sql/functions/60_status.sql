-- Views and functions for people and for the status page.

create or replace view rowbeat.tasks as
select t.id, t.definition,
    case
        when t.state = 'running' then 'running'
        when t.run_at <= rowbeat.now_() then 'available'
        when t.failures > 0 then 'retryable'
        else 'scheduled'
    end as state,
    null::text as outcome, t.queue, t.priority, t.payload, null::jsonb as result, t.last_error as error,
    t.attempt, t.failures, t.max_attempts, t.cause, t.created_at, t.run_at,
    case when t.attempt > 0 then t.claimed_at end as started_at, null::timestamptz as finished_at, t.claimed_by as node,
    t.unique_key, t.serial_key, t.parked
from rowbeat.task t
union all
select f.id, f.definition, f.state, f.outcome, f.queue, f.priority, f.payload, f.result, f.error,
    f.attempt, f.failures, f.max_attempts, f.cause, f.created_at, f.run_at, f.started_at, f.finished_at, f.node,
    f.unique_key, f.serial_key, null
from rowbeat.finished_task f;
comment on view rowbeat.tasks is 'All tasks, live and finished, with the state people mean: scheduled, available, running, retryable, completed, failed, cancelled.';

create or replace view rowbeat.queues as
select coalesce(t.queue, q.name) as queue, coalesce(t.waiting, 0) as waiting, coalesce(t.running, 0) as running,
    coalesce(t.available, 0) as available, t.next_run_at, q.concurrency, q.paused_at
from (
    select l.queue, count(*) filter (where l.state = 'waiting') as waiting, count(*) filter (where l.state = 'running') as running,
        count(*) filter (where l.state = 'waiting' and l.run_at <= (select rowbeat.now_())) as available,
        min(l.run_at) filter (where l.state = 'waiting') as next_run_at
    from rowbeat.task l group by l.queue
) t full join rowbeat.queue q on q.name = t.queue;
comment on view rowbeat.queues is 'Queues with live tasks, a limit or a pause: waiting (available are those of them that are due) and running tasks.';

create or replace view rowbeat.slow as
select r.id, r.definition, r.state, r.finished_at - r.started_at as took, r.started_at - r.run_at as waited, r.started_at, r.node
from (
    select t.id, t.definition, t.state, t.claimed_at as started_at, t.run_at, rowbeat.now_() as finished_at, t.claimed_by as node
    from rowbeat.task t where t.state = 'running'
    union all
    select f.id, f.definition, f.state, f.started_at, f.run_at, f.finished_at, f.node
    from rowbeat.finished_task f where f.finished_at > (select rowbeat.now_()) - interval '1 day' and f.started_at is not null
) r
order by took desc;
comment on view rowbeat.slow is 'Running tasks and those that ended within a day, the longest first: how long the last attempt took and how long it had waited when it was due.';

create or replace view rowbeat.failures as
select f.id, f.definition, f.error ->> 'message' as message, f.error, f.outcome, f.failures, f.payload, f.finished_at
from rowbeat.finished_task f where f.state = 'failed' order by f.finished_at desc;
comment on view rowbeat.failures is 'Failed tasks, latest first; rowbeat.retry(id) runs one again.';

create or replace view rowbeat.watches as
select w.name, rowbeat.live_name(w) as "table", w.operations, w.definition, w.enabled, s.status, s.problem, f.failed, w.last_error, w.last_error_at
from rowbeat.watch w
cross join lateral (select coalesce(sum(cardinality(u.seqs)), 0) as failed from rowbeat.watch_failure u where u.watch = w.name) f
cross join lateral (
    select v.status, v.problem from (values
        (not exists (select from pg_catalog.pg_class c where c.oid = w.table_name), 'its table is gone: remove it', true),
        (not w.enabled, 'disabled', false),
        (w.suspended_at is not null, 'suspended: its expressions took too long; edit it, then rowbeat change replay --failed', true),
        (exists (select from pg_catalog.pg_class c where c.oid = w.table_name and c.relispartition), 'its table is a partition by now: watch its root', true),
        (exists (select from unnest(rowbeat.captured_operations(w.table_name, w.operations)) o where not exists (
            select from rowbeat.capture_trigger t where t.table_name = w.table_name and t.operation = o and t.enabled)),
            'a trigger is missing or disabled: write the watch again', true),
        (f.failed > 0, format('%s changes failed: %s; rowbeat change replay --failed', f.failed, w.last_error), true),
        (w.last_error is not null, w.last_error, true),
        (w.effective_from > (select rowbeat.now_()) at time zone w.time_zone, format('from %s', w.effective_from), false),
        (w.effective_until <= (select rowbeat.now_()) at time zone w.time_zone, 'over', false),
        (true, 'watching', false)
    ) v (holds, status, problem) where v.holds limit 1
) s
order by w.name;
comment on view rowbeat.watches is 'Watches, whether they work, and how many changes wait for a replay.';

create or replace view rowbeat.consumers as
select r.name, r.tables, r.role, r.read_at, r.lost_at, u.waits_since
from rowbeat.change_consumer r
cross join lateral (
    select min(c.at) as waits_since from (
        (select c.at from rowbeat.change c where c.xid >= pg_snapshot_xmax(r.position) and (r.tables is null or c.table_name = any (r.tables))
         order by c.xid, c.seq limit 1)
        union all
        select c.at from rowbeat.change c where c.xid = any (array(select pg_snapshot_xip(r.position))) and (r.tables is null or c.table_name = any (r.tables))
    ) c
) u;
comment on view rowbeat.consumers is 'Readers of the change log: since when something waits for them, and whether they lost their place.';

create or replace view rowbeat.backups as
select b.name, coalesce(t.name, s.table_name) as "table", b.enabled, v.status, v.problem, b.baselined_at, r.waits_since, b.broken_at
from rowbeat.backup b
join rowbeat.backup_source s on s.id = b.source
left join lateral (select rowbeat.table_name(c.oid) as name, c.relispartition from pg_catalog.pg_class c where c.oid = b.table_name) t on true
left join rowbeat.consumers r on r.name = 'backup'
cross join lateral (
    select v.status, v.problem from (values
        (t.name is null, 'its table is gone: create it again, rowbeat backup enable, then rowbeat restore', true),
        (not b.enabled, 'ended', false),
        (t.relispartition, 'its table is a partition by now: enable its root', true),
        (rowbeat.key_columns(b.table_name) = '{}', 'its table has no primary key any more: give it one, then rowbeat backup enable --again', true),
        (exists (select from unnest(rowbeat.backup_operations()) o where not exists (
            select from rowbeat.capture_trigger c where c.table_name = b.table_name and c.operation = o and c.enabled)),
            'a trigger is missing or disabled: rowbeat backup enable --again', true),
        (b.broken is not null, format('incomplete since %s: %s; rowbeat backup enable --again', b.broken_at, b.broken), true),
        (rowbeat.changed_columns(b) is not null, format('its columns changed (%s): rowbeat backup enable --again', rowbeat.changed_columns(b)), true),
        (r.waits_since < (select rowbeat.now_()) - interval '1 minute', format('behind since %s', r.waits_since), true),
        (b.baselined_at is null, 'the baseline is being taken', false),
        (true, 'up to date', false)
    ) v (holds, status, problem) where v.holds limit 1
) v
order by b.name;
comment on view rowbeat.backups is 'Backups, and whether they are complete and up to date.';

create or replace view rowbeat.backup_targets as
select t.name, t.kind, t.position, n.newest - t.position as behind, t.written_at, t.node,
    case when t.error is not null then format('fails since %s: %s', t.error_at, t.error)
        when n.newest > t.position and t.written_at < (select rowbeat.now_()) - interval '2 minutes' then format('behind, and not written since %s', t.written_at)
        when n.newest > t.position then 'catching up' else 'up to date' end as status,
    t.error is not null or n.newest > t.position and t.written_at < (select rowbeat.now_()) - interval '2 minutes' as problem
from rowbeat.backup_target t
cross join lateral (select coalesce(max(b.number), 0) as newest from rowbeat.backup_transaction b) n
order by t.name;
comment on view rowbeat.backup_targets is 'Further targets of the backup: how many transactions each is behind, and what is wrong.';

create or replace view rowbeat.upcoming as
select s.name, s.definition, s.spec, s.time_zone, s.enabled, s.next_fire_at,
    to_char(s.next_fire_at at time zone s.time_zone, 'YYYY-MM-DD HH24:MI:SS') as next_fire_local,
    case
        when not s.enabled then 'disabled'
        when s.last_error is not null then s.last_error
        when s.planned_at is null then 'being planned'
        when s.next_fire_at is null then 'no more fires'
        else 'planned'
    end as status,
    (select nullif(concat_ws('; ',
        case when d.paused_at is not null then format('definition %s is paused', d.name) end,
        (select format('queue %s is paused', q.name) from rowbeat.queue q where q.name = coalesce(s.queue, d.queue) and q.paused_at is not null),
        (select string_agg(format('feature %s is %s', m.feature, m.why), '; ') from rowbeat.missing_features(s.requires || d.requires) m),
        (select format('%s is a day of calendar %s%s', c.day, c.calendar, ': ' || c.reason) from rowbeat.calendar_day c
            where c.calendar = s.calendar and c.day = (s.next_fire_at at time zone s.time_zone)::date)), '')
        from rowbeat.task_definition d where d.name = s.definition) as blocked,
    s.last_fire_at, f.decision as last_decision, f.reason as last_reason, s.last_task_id
from rowbeat.schedule s left join rowbeat.fire f on f.schedule = s.name and f.nominal_at = s.last_fire_at
order by s.next_fire_at nulls last, s.name;
comment on view rowbeat.upcoming is 'Schedules by their next fire: what stands in its way, and what became of the latest nominal time.';

create or replace view rowbeat.nodes as
select n.id, n.name, n.version, n.process_id, n.started_at, n.heartbeat_at,
    case
        when n.stopped_at is not null then 'stopped'
        when n.lost_at is not null then 'lost'
        when n.heartbeat_at < rowbeat.now_() - n.lease then 'silent'
        else 'alive'
    end as state,
    (select count(*) from rowbeat.task t where t.claimed_by = n.id) as running, n.queues, n.lacks, n.rate
from rowbeat.node n
where n.kind = 'node'
union all
select w.id, w.name, w.version, w.process_id, w.started_at, w.heartbeat_at, 'worker',
    (select count(*) from rowbeat.task t where t.claimed_by = w.id), w.queues, w.lacks, w.rate
from rowbeat.node w
where w.kind = 'worker';
comment on view rowbeat.nodes is 'Daemons, alive and gone, and foreign workers by the names they give.';

-- The whole status in one document; bounded work: counts of live tasks and of the last hour's ended ones, not of history.
create or replace function rowbeat.status() returns jsonb
language sql stable set search_path = '' as $$
    select jsonb_build_object(
        'database', current_database(),
        'now', rowbeat.now_(),
        'nodes', (select coalesce(jsonb_agg(jsonb_build_object('id', n.id, 'name', n.name, 'version', n.version, 'state', n.state,
            'started_at', n.started_at, 'heartbeat_at', n.heartbeat_at, 'running', n.running) order by n.id), '[]')
            from rowbeat.nodes n where n.state in ('alive', 'silent')),
        'queues', (select coalesce(jsonb_agg(to_jsonb(q) order by q.queue), '[]') from rowbeat.queues q),
        'schedules', (select coalesce(jsonb_agg(jsonb_build_object('name', u.name, 'spec', u.spec, 'time_zone', u.time_zone,
            'status', u.status, 'blocked', u.blocked, 'next_fire_at', u.next_fire_at, 'last_fire_at', u.last_fire_at,
            'last_decision', u.last_decision)), '[]') from rowbeat.upcoming u),
        'zone_data', jsonb_build_object('server', rowbeat.server_zone_data(), 'schedules', (select max(s.zone_data) from rowbeat.schedule s)),
        'watches', (select coalesce(jsonb_agg(to_jsonb(w) order by w.name), '[]') from rowbeat.watches w),
        'consumers', (select coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'read_at', c.read_at, 'lost_at', c.lost_at,
            'behind_seconds', coalesce(round(extract(epoch from rowbeat.now_() - c.waits_since), 1), 0)) order by c.name), '[]') from rowbeat.consumers c),
        'backups', (select coalesce(jsonb_agg(to_jsonb(b) || jsonb_build_object('ok', (not b.problem)::integer) order by b.name), '[]') from rowbeat.backups b),
        'backup_targets', (select coalesce(jsonb_agg(to_jsonb(t) order by t.name), '[]') from rowbeat.backup_targets t),
        'channels', (select coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'definition', c.definition,
            'enabled', c.enabled) order by c.name), '[]') from rowbeat.channel c),
        'plugins', (select coalesce(jsonb_agg(jsonb_build_object('name', p.name, 'version', p.version, 'isolated', p.role_name is not null)
            order by p.name), '[]') from rowbeat.plugin p where p.removed_at is null),
        'failures', (select coalesce(jsonb_agg(to_jsonb(f)), '[]') from (select f.id, f.definition, f.message, f.finished_at
            from rowbeat.failures f limit 20) f)
    )
$$;
comment on function rowbeat.status() is 'The whole status as one JSON document: nodes, queues, schedules, watches, consumers, backups, channels, plugins, latest failures.';
