-- name: take_duty
-- The channels to listen to, if this session is now (or still) the one on duty for them; null: another one is, or the database is
-- an unconfirmed copy.
select array(select c.name from rowbeat.channel c where c.enabled order by c.name) as channels
where rowbeat.is_home() and (
    exists (select from pg_locks l where l.locktype = 'advisory' and l.pid = pg_backend_pid() and l.classid = 1919907682
        and l.objid = 3 and l.granted)
    or pg_try_advisory_lock(1919907682, 3))

-- name: enqueue_heard
-- $1 channels · $2 payloads · $3 pids, in the order heard. Returns how many tasks were made.
with heard as (
    insert into rowbeat.task (definition, payload, cause)
    select c.definition, jsonb_build_object('channel', h.channel, 'payload', h.payload, 'pid', h.pid),
        jsonb_build_object('kind', 'channel', 'name', h.channel)
    from unnest($1::text[], $2::text[], $3::integer[]) with ordinality as h (channel, payload, pid, n)
    join rowbeat.channel c on c.name = h.channel and c.enabled
    order by h.n
    returning 1
)
select count(*) from heard
