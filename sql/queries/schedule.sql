-- name: unplanned
-- Locked ones are being edited: their commit is announced.
select s.name, s.xmin::text as version, s.spec, s.time_zone, s.anchor, s.plan_from, s.start_at, s.end_at
from rowbeat.schedule s where s.enabled and s.planned_at is null limit 1000 for update skip locked

-- name: plan
-- $1 names · $2 their versions as they were read: an edit since then is planned by itself · $3 next fires or nulls · $4 errors or nulls ·
-- $5 release of the zone data
update rowbeat.schedule s set next_fire_at = p.next_at, last_error = p.error, planned_at = rowbeat.now_(), zone_data = $5
from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) p (name, version, next_at, error)
where s.name = p.name and s.xmin::text = p.version and s.planned_at is null

-- name: replan_outdated
-- Rows planned by older zone data are planned anew, from their last fire: what is due already fires first. $1 release of the zone data
update rowbeat.schedule s set planned_at = null, plan_from = greatest(s.plan_from, s.last_fire_at)
where s.enabled and coalesce(s.zone_data, '') < $1 and s.next_fire_at > rowbeat.now_()

-- name: due
-- Due schedules, and how long until the next one; a row without a schedule when there is none. One whose features have not been asked
-- for yet waits for that, a moment. $1 how many
select n.now, s.name, s.spec, s.time_zone, s.anchor, s.end_at, s.next_fire_at, s.catch_up,
    (extract(epoch from s.catch_up_window) * 1000)::bigint as window_ms, (extract(epoch from s.next_fire_at - n.now) * 1000)::bigint as in_ms
from (select rowbeat.now_() as now) n
left join (select * from rowbeat.schedule d where d.enabled and d.next_fire_at is not null
    and (d.requires = '{}' or not exists (select from rowbeat.feature f
        where f.name = any (d.requires) and f.condition is not null and f.checked_at is null)) order by d.next_fire_at limit $1) s on true
order by s.next_fire_at

-- name: fire
-- $1 what is due: see rowbeat.fire · $2 release of the zone data
select f.schedule, f.decided, f.task_id from rowbeat.fire($1, $2) f

-- name: failed
-- $1 name · $2 what the database said
update rowbeat.schedule s set last_error = $2 where s.name = $1

-- name: add
-- $1 name · $2 spec · $3 definition · $4 payload · $5 zone · $6 start or null · $7 end or null · $8 enabled · $9 one-shot · $10 features ·
-- $11 catch-up · $12 its window or null · $13 overlap · $14 jitter · $15 calendar or null · $16 queue or null · $17 priority or null
select rowbeat.schedule($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::interval, $13, $14::text::interval, $15, $16, $17)

-- name: remove
-- $1 name
select rowbeat.unschedule($1)

-- name: list
select to_jsonb(u) as schedule from rowbeat.upcoming u

-- name: explain
-- A schedule, what stands in its way, and its latest fires. $1 name
select s.spec, s.time_zone, s.anchor, s.end_at, s.next_fire_at,
    (select to_jsonb(u) from rowbeat.upcoming u where u.name = s.name) as schedule,
    (select coalesce(jsonb_agg(to_jsonb(e)), '[]') from rowbeat.explain_schedule(s.name) e) as reasons,
    (select coalesce(jsonb_agg(to_jsonb(f) - 'schedule' order by f.nominal_at desc), '[]')
        from (select * from rowbeat.fire l where l.schedule = s.name order by l.nominal_at desc limit 10) f) as fires
from rowbeat.schedule s where s.name = $1

-- name: now
select rowbeat.now_() as now
