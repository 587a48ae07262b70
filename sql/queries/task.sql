-- name: claim
-- $1 node · $2 how many · $3 how many of them start at once · $4 queues ({*}: all) · $5 definitions this node cannot perform
-- $6 to $10: where to look, a lane each: queue, priority, definition, run_at and id to begin after; null: everywhere
-- $11 begin this many milliseconds before now at the latest
select c.*, (extract(epoch from c.timeout) * 1000)::bigint as timeout_ms
from rowbeat.claim_tasks($1, $2, $3, $4, $5, case when $6::text[] is not null then array(
    select row(l.queue, l.priority, l.definition, least(l.run_at, trail.at), case when l.run_at <= trail.at then l.id else 0 end, null)::rowbeat.lane
    from unnest($6::text[], $7::smallint[], $8::text[], $9::timestamptz[], $10::bigint[]) l (queue, priority, definition, run_at, id),
        (select rowbeat.now_() - $11::bigint * interval '1 millisecond' as at) trail) end) c

-- name: claim_isolated
-- Claims a task that two nodes in a row died with, for a node that has nothing else in hand. $1 node · $2, $3 as $4, $5 of claim
select c.*, (extract(epoch from c.timeout) * 1000)::bigint as timeout_ms
from rowbeat.claim_isolated($1, $2, $3) c

-- name: next_due
-- When to look for work again, in milliseconds from now; null: nothing is to come. $1 queues · $2 definitions this node cannot perform
select rowbeat.next_due($1, $2) as in_ms

-- name: complete
-- Ends done attempts, a batch at a time. $1 ids · $2 attempts · $3 nodes · $4 results. The ids it has ended.
select c.id from rowbeat.complete_tasks($1, $2, $3, $4) c (id)

-- name: perform_sql_batch
-- $1 ids · $2 attempts · $3 node. The ids it left out.
select coalesce(array_agg(b.id), '{}') as left_out, pg_advisory_unlock_all() from rowbeat.perform_sql_batch($1, $2, $3) b (id)

-- name: still_held
-- Which of these attempts still hold their claim. $1 ids · $2 attempts · $3 nodes
select t.id from unnest($1::bigint[], $2::integer[], $3::bigint[]) as u (id, attempt, node)
cross join lateral (select h.id from rowbeat.task h where h.id = u.id and h.attempt = u.attempt and h.claimed_by = u.node) t

-- name: end_attempt
-- $1 id · $2 attempt · $3 node · $4 outcome · $5 result · $6 error · $7 retry after, milliseconds (null: by policy)
select rowbeat.end_attempt($1, $2, $3, $4, $5, $6, $7::bigint * interval '1 millisecond')

-- name: perform_sql
-- $1 id · $2 attempt · $3 node
select rowbeat.perform_sql($1, $2, $3), pg_advisory_unlock_all()

-- name: plan
-- $1 id · $2 attempt · $3 node
select p.effect, cardinality(rowbeat.responses($1)) as steps, (rowbeat.read_verdict(p.effect)).outcome is not null as ended
from rowbeat.call_plan($1, $2, $3) p (effect)

-- name: record_step
-- $1 id · $2 attempt · $3 node · $4 step · $5 effect · $6 response
insert into rowbeat.step (task_id, step, effect, response)
select h.id, $4, $5, $6 from rowbeat.hold_claim($1, $2, $3) h
on conflict (task_id, step) do nothing

-- name: last_response
-- $1 id
select s.response from rowbeat.step s where s.task_id = $1 order by s.step desc limit 1

-- name: cancel_requested
-- Which of these running tasks somebody wants cancelled. $1 ids · $2 node
select t.id from rowbeat.task t where t.id = any ($1) and t.claimed_by = $2 and t.cancel_requested_at is not null

-- name: rescue_lost
select rowbeat.rescue_lost()

-- name: prune
select rowbeat.prune()

-- name: release_unknown
-- Gives back tasks claimed by a node that does not know of them: the answer to its claim got lost. $1 node · $2 known ids
select t.id, rowbeat.end_attempt(t.id, t.attempt, $1, 'interrupted') from rowbeat.task t
where t.claimed_by = $1 and t.state = 'running' and t.id <> all ($2::bigint[])

-- name: check_features
select rowbeat.check_features() as changed

-- name: release_orphans
select rowbeat.release_orphans() + rowbeat.rescue_forgotten() as released

-- name: definitions
-- What a node needs to know of each definition: what it names, which the node may lack (handler, program, connection); of a plain sql one its
-- statement.
select d.name, d.executor, d.effect ->> case d.executor when 'exec' then 'program' else 'connection' end as named, d.xmin::text::bigint as revision,
    rowbeat.sql_statement(d) as statement
from rowbeat.task_definition d

-- name: enqueue
-- $1 definition · $2 payload · $3 run at · $4 queue · $5 priority · $6 max attempts · $7 unique key · $8 serial key
select rowbeat.enqueue($1, $2, $3, $4, $5, $6, null, $7, p_serial_key => $8)

-- name: cancel
-- $1 id
select rowbeat.cancel($1)

-- name: retry
-- $1 id
select rowbeat.retry($1)

-- name: retry_failed
-- $1 definition or null
select rowbeat.retry_failed($1)

-- name: run_now
-- $1 id
select rowbeat.run_now($1)

-- name: explain
-- $1 id
select to_jsonb(e) as reason from rowbeat.explain_task($1) e

-- name: pause
-- $1 definition or null · $2 queue or null
select rowbeat.pause($1, $2)

-- name: resume
-- $1 definition or null · $2 queue or null
select rowbeat.resume($1, $2)

-- name: list
-- $1 state or null · $2 definition or null · $3 how many
select to_jsonb(t) as task from rowbeat.tasks t
where ($1::text is null or t.state = $1) and ($2::text is null or t.definition = $2)
order by t.id desc limit $3

-- name: show
-- $1 id
select to_jsonb(t) || jsonb_build_object(
    'attempts', (select coalesce(jsonb_agg(to_jsonb(a) - 'slot' - 'expires_on' order by a.attempt), '[]')
        from rowbeat.attempt a where a.task_id = t.id),
    'steps', (select coalesce(jsonb_agg(to_jsonb(s) - 'task_id' order by s.step), '[]') from rowbeat.step s where s.task_id = t.id)
) as task
from rowbeat.tasks t where t.id = $1
