-- Statements of the HTTP service.

-- name: all
-- Every endpoint.
select to_jsonb(e) as endpoint from rowbeat.plugin_endpoint e order by e.shape, e.method

-- name: serve
-- $1 method · $2 shape · $3 request · $4 files · $5 digest of the token · $6 whether it came straight over the loopback.
select s.answer, s.templates, s.refusal from rowbeat.serve_endpoint($1, $2, $3, $4, $5, $6) s

-- name: used
-- $1 digest of a token that was shown. To the minute: a busy token is not written by every request.
update rowbeat.token t set last_used_at = now()
where t.digest = $1 and t.revoked_at is null and (t.expires_at is null or t.expires_at > now())
    and (t.last_used_at is null or t.last_used_at < now() - interval '1 minute')

-- name: authorise
-- $1 operator or any · $2 digest of the token · $3 whether it came straight over the loopback. For the daemon's own paths.
select a.actor, a.refusal from rowbeat.authorise($1, null, null, $2, $3) a

-- name: active_triggers
-- Triggers of the application, as information_schema has them.
select coalesce(jsonb_agg(to_jsonb(t) order by t.event_object_schema, t.event_object_table, t.trigger_name, t.event_manipulation), '[]') as triggers
from (
    select g.trigger_catalog, g.trigger_schema, g.trigger_name, g.event_manipulation, g.event_object_catalog, g.event_object_schema,
        g.event_object_table, g.action_order, g.action_condition, g.action_statement, g.action_orientation, g.action_timing
    from information_schema.triggers g where g.event_object_schema <> 'rowbeat'
) t

-- name: tasks_are_late
-- Whether a task waits that should have begun a minute ago.
select not h.ok as late from rowbeat.health h where h."check" = 'waiting'

-- name: ended_tasks
-- $1 definitions, as a pattern. Schedules, and the latest tasks that ended: of results and errors the beginning.
select jsonb_build_object(
    'schedules', (select coalesce(jsonb_agg(to_jsonb(u) order by u.name), '[]') from rowbeat.upcoming u where u.definition like $1),
    'tasks', (select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'definition', t.definition, 'state', t.state, 'attempt', t.attempt,
            'finished_at', t.finished_at, 'result', left(coalesce(t.result, t.error)::text, 400)) order by t.id desc), '[]')
        from (select * from rowbeat.finished_task f where f.definition like $1 order by f.id desc limit 50) t)) as shown

-- name: edit_schedule
-- $1 name · $2 enabled · $3 spec · $4 zone; null: as it is.
update rowbeat.schedule s
set enabled = coalesce($2, s.enabled), spec = coalesce($3, s.spec), time_zone = coalesce($4, s.time_zone)
where s.name = $1
returning s.name
