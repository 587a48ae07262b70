-- name: claim
-- $1 node · $2 how many · $3 queues ({*}: all) · $4 definitions this node cannot perform
-- Lanes (queue, priority) are found by a loose scan of the claim index, then each is read in order of run_at. The rows are
-- taken by ctid: an InitPlan and a TID scan under any plan. A row that changed between snapshot and lock is missed once.
with recursive lane as (
    (select t.queue, t.priority from rowbeat.task t where t.parked is null order by t.queue, t.priority limit 1)
    union all
    select n.queue, n.priority from lane l cross join lateral (
        select t.queue, t.priority from rowbeat.task t
        where t.parked is null and (t.queue, t.priority) > (l.queue, l.priority)
        order by t.queue, t.priority limit 1
    ) n
)
update rowbeat.task t
set state = 'running', attempt = t.attempt + 1, claimed_by = $1, claimed_at = rowbeat.now_(),
    unique_key = case when d.unique_until = 'finish' then t.unique_key end
from rowbeat.task_definition d
where d.name = t.definition and t.ctid = any (array(
    select due.tid
    from (select l.queue, l.priority from lane l where $3::text[] = '{*}' or l.queue = any ($3) order by l.priority, l.queue) l
    cross join lateral (
        select c.ctid as tid from rowbeat.task c
        where c.queue = l.queue and c.priority = l.priority and c.parked is null and c.state = 'waiting'
            and c.run_at <= (select rowbeat.now_()) and c.definition <> all ($4::text[])
        order by c.run_at, c.id limit $2 for update skip locked
    ) due
    limit $2
))
returning t.id, t.attempt, t.definition, t.payload, t.priority, t.run_at, t.cause, d.executor, d.effect,
    d.plan_function is not null as planned, d.settle_function is not null as settled,
    (extract(epoch from coalesce(t.timeout, d.timeout)) * 1000)::bigint as timeout_ms

-- name: next_due
-- When the next waiting task of these queues is due, as milliseconds from now; null: none. $1 queues · $2 as in claim.
with recursive lane as (
    (select t.queue, t.priority from rowbeat.task t where t.parked is null order by t.queue, t.priority limit 1)
    union all
    select n.queue, n.priority from lane l cross join lateral (
        select t.queue, t.priority from rowbeat.task t
        where t.parked is null and (t.queue, t.priority) > (l.queue, l.priority)
        order by t.queue, t.priority limit 1
    ) n
)
select (extract(epoch from min(due.run_at) - rowbeat.now_()) * 1000)::bigint as in_ms
from lane l
cross join lateral (
    select c.run_at from rowbeat.task c
    where c.queue = l.queue and c.priority = l.priority and c.parked is null and c.state = 'waiting' and c.definition <> all ($2::text[])
    order by c.run_at limit 1
) due
where $1::text[] = '{*}' or l.queue = any ($1)

-- name: complete
-- Ends done attempts without a settle function, a batch at a time. $1 ids · $2 attempts · $3 nodes · $4 results.
-- Returns the ids it has ended; one that is missing was changed at that very moment, or has lost its claim. By ctid, like the
-- claim: a join would be planned as a hash over the whole table.
with c as materialized (
    select * from unnest($1::bigint[], $2::integer[], $3::bigint[], $4::jsonb[]) as u (id, attempt, node, result)
), done as (
    delete from rowbeat.task t where t.ctid = any (array(
        select held.tid from c cross join lateral (
            select s.ctid as tid from rowbeat.task s
            where s.id = c.id and s.attempt = c.attempt and s.claimed_by = c.node and s.state = 'running'
            for update
        ) held
    ))
    returning t.*
), kept as (
    insert into rowbeat.finished_task (slot, id, definition, payload, queue, priority, cause, state, outcome, result, attempt,
        failures, max_attempts, timeout, unique_key, node, created_at, run_at, started_at, finished_at, expires_on)
    select rowbeat.slot_of(n.today + d.keep_days), done.id, done.definition, done.payload, done.queue, done.priority,
        done.cause, 'completed', 'done', c.result, done.attempt, done.failures, done.max_attempts, done.timeout,
        done.unique_key, done.claimed_by, done.created_at, done.run_at, done.claimed_at, n.at, n.today + d.keep_days
    from done
    join c on c.id = done.id
    join rowbeat.task_definition d on d.name = done.definition and d.keep = 'all'
    cross join (select now_.at, (now_.at at time zone 'UTC')::date as today from (select rowbeat.now_() as at) now_) n
)
select id from done

-- name: end_attempt
-- $1 id · $2 attempt · $3 node · $4 outcome · $5 result · $6 error · $7 retry after, milliseconds (null: by policy)
select rowbeat.end_attempt($1, $2, $3, $4, $5, $6, $7::bigint * interval '1 millisecond')

-- name: perform_sql
-- $1 id · $2 attempt · $3 node
select rowbeat.perform_sql($1, $2, $3)

-- name: plan
-- $1 id · $2 attempt · $3 node
select rowbeat.call_plan($1, $2, $3) as effect, cardinality(rowbeat.responses($1)) as steps

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

-- name: foreign_definitions
-- Definitions whose tasks a node can only perform when it has what they name: handlers and programs.
select d.name, d.executor, d.effect ->> 'program' as program from rowbeat.task_definition d where d.executor <> 'sql'

-- name: enqueue
-- $1 definition · $2 payload · $3 run at · $4 queue · $5 priority · $6 max attempts · $7 unique key
select rowbeat.enqueue($1, $2, $3, $4, $5, $6, null, $7)

-- name: cancel
-- $1 id
select rowbeat.cancel($1)

-- name: retry
-- $1 id
select rowbeat.retry($1)

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
