-- What an operator should know: one row a check.

-- Who keeps the server from forgetting dead rows, longer than a quarter of an hour: sessions, prepared transactions, replication slots.
-- Claims stay level meanwhile, but the tables grow.
create or replace view rowbeat.old_snapshot as
select format('session %s (%s, %s, %s) since %s', a.pid, a.usename, a.application_name, a.state, a.xact_start) as holder, a.xact_start as since
from pg_catalog.pg_stat_activity a
where a.backend_xmin is not null and a.xact_start < now() - interval '15 minutes'
union all
select format('prepared transaction %s of %s since %s', p.gid, p.owner, p.prepared), p.prepared
from pg_catalog.pg_prepared_xacts p where p.prepared < now() - interval '15 minutes'
union all
select format('replication slot %s, %s transactions behind', s.slot_name, age(coalesce(s.xmin, s.catalog_xmin))), null
from pg_catalog.pg_replication_slots s where age(coalesce(s.xmin, s.catalog_xmin)) > 1000000;
comment on view rowbeat.old_snapshot is 'Who keeps the server from forgetting dead rows: sessions, prepared transactions and replication slots.';

create or replace view rowbeat.health as
select 'nodes' as "check", count(*) > 0 as ok, format('%s running', count(*)) as detail from rowbeat.nodes n where n.state = 'alive'
union all
select 'database', rowbeat.is_home(), case when rowbeat.is_home() then 'the one rowbeat was installed in'
    else 'a copy: nothing starts before rowbeat.confirm_database()' end
union all
select 'waiting', coalesce(min(w.run_at) > rowbeat.now_() - interval '1 minute', true),
    case when count(*) = 0 then 'nothing waits'
        else format('the oldest due task waits since %s: rowbeat.explain_task(%s)', min(w.run_at), (array_agg(w.id order by w.run_at))[1]) end
from (
    select t.id, t.run_at from unnest(rowbeat.open_lanes(null, '{*}', '{}', null, false)) l cross join lateral (
        select c.id, c.run_at from rowbeat.task c
        where c.queue = l.queue and c.priority = l.priority and c.definition = l.definition and c.parked is null
            and c.state = 'waiting' and c.run_at <= (select rowbeat.now_()) and not l.limited
        order by c.run_at, c.id limit 1
    ) t
) w
union all
select 'quarantined', count(*) = 0, format('%s tasks that nodes died with wait for rowbeat.run_now or cancel', count(*))
from rowbeat.task t where t.parked = 'quarantined'
union all
select 'failures', count(*) = 0, format('%s tasks failed within the last hour', count(*))
from rowbeat.finished_task f where f.state = 'failed' and f.finished_at > (select rowbeat.now_()) - interval '1 hour'
union all
select 'schedules', count(*) = 0, format('%s cannot be planned or fired', count(*)) from rowbeat.schedule s where s.enabled and s.last_error is not null
union all
select 'watches', count(*) = 0, coalesce(string_agg(format('%s: %s', p.name, p.status), '; '), 'all are well')
from rowbeat.watches p where p.problem
union all
select 'change log', count(*) = 0, coalesce(string_agg(case
        when c.lost_at is not null then format('consumer %s lost its place %s: rowbeat.rebase_consumer(''%s'')', c.name, c.lost_at, c.name)
        else format('consumer %s is behind since %s', c.name, c.waits_since) end, '; '), 'every consumer is up to date')
from rowbeat.consumers c
where c.lost_at is not null or c.waits_since < (select rowbeat.now_()) - case when c.name = 'router' then interval '1 minute' else interval '1 day' end
union all
select 'backups', count(*) = 0, coalesce(string_agg(format('%s: %s', p.name, p.status), '; '), 'all are well')
from (
    select b.name, b.status from rowbeat.backups b where b.problem
    union all
    select 'target ' || t.name, t.status from rowbeat.backup_targets t where t.problem
) p
union all
select 'features', count(*) = 0, format('%s cannot be asked', count(*)) from rowbeat.feature f where f.last_error is not null
union all
select 'notifications', pg_notification_queue_usage() < 0.5, format('the server''s queue is %s %% full', round(pg_notification_queue_usage() * 100))
union all
select 'snapshots', count(*) = 0, coalesce('dead rows are kept by ' || string_agg(o.holder, '; '), 'nobody keeps dead rows') from rowbeat.old_snapshot o;
comment on view rowbeat.health is 'Checks for an operator: what is checked, whether it is well, and what was found.';
