-- name: wanted
-- $1 whether somebody wants to be told what is heard. The channels whose notifications become tasks, those of this session if it is now
-- (or still) the one on duty for them; what plugins announce, for whoever is told; and what plugins say when they announce nothing.
-- No row: the database is an unconfirmed copy.
with duty as materialized (
    select exists (select from pg_locks l where l.locktype = 'advisory' and l.pid = pg_backend_pid() and l.classid = 1919907682
        and l.objid = 3 and l.granted)
        or pg_try_advisory_lock(1919907682, 3) as mine
    where rowbeat.is_home()
), announced as (
    select p.name as plugin, p.manifest -> 'listen' as listen, array(
        select l.channel from rowbeat.listening l
        where l.plugin = p.name and (l.starts_at is null or l.starts_at <= n.at) and (l.ends_at is null or l.ends_at > n.at)) as channels
    from rowbeat.plugin p cross join (select rowbeat.now_() as at) n where $1 and p.removed_at is null
)
select case when d.mine then array(select c.name from rowbeat.channel c where c.enabled) else '{}' end as tasks,
    array(select unnest(a.channels) from announced a
        union select jsonb_array_elements_text(a.listen -> 'channels') from announced a) as announced,
    array(select a.listen ->> 'nothing' from announced a
        where a.channels = '{}' and a.listen ->> 'nothing' is not null order by a.plugin) as nothing
from duty d

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
