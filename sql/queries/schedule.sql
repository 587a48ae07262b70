-- name: unplanned
select s.name, s.spec, s.time_zone, s.anchor, s.plan_from, s.start_at, s.end_at
from rowbeat.schedule s where s.enabled and s.planned_at is null limit 1000

-- name: plan
-- $1 name · $2 spec and $3 zone as they were read · $4 next fire or null · $5 error or null
update rowbeat.schedule s set next_fire_at = $4, last_error = $5, planned_at = rowbeat.now_()
where s.name = $1 and s.spec = $2 and s.time_zone = $3 and s.planned_at is null

-- name: due
-- Due schedules, and how long until the next one.
select s.name, s.spec, s.time_zone, s.anchor, s.end_at, s.next_fire_at, n.now,
    (extract(epoch from s.next_fire_at - n.now) * 1000)::bigint as in_ms
from rowbeat.schedule s cross join (select rowbeat.now_() as now) n
where s.enabled and s.next_fire_at is not null
order by s.next_fire_at limit 100

-- name: fire
-- $1 name · $2 stored next fire · $3 nominal time to fire · $4 the next one or null · $5 how many were missed
select rowbeat.fire($1, $2, $3, $4, $5)

-- name: add
-- $1 name · $2 spec · $3 definition · $4 payload · $5 zone · $6 start or null · $7 end or null
select rowbeat.schedule($1, $2, $3, $4, $5, $6, $7)

-- name: remove
-- $1 name
select rowbeat.unschedule($1)

-- name: list
select to_jsonb(u) as schedule from rowbeat.upcoming u

-- name: now
select rowbeat.now_() as now
