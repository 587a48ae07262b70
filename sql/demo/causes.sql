-- The latest task of each cause, and how many there were, in the shop.
select c.kind, l.id, l.name, l.definition, l.state, l.result, l.error,
    (extract(epoch from l.started_at - greatest(l.created_at, l.run_at)) * 1000)::float8 as started_after_ms, c.completed, c.total
from (
    select coalesce(t.cause ->> 'kind', 'insert') as kind, count(*) as total,
        count(*) filter (where t.state = 'completed') as completed,
        coalesce(max(t.id) filter (where t.state = 'completed'), max(t.id)) as latest
    from rowbeat.tasks t where t.definition in ('tell_customer', 'restock', 'ship') group by 1
) c
join lateral (select t.*, coalesce(t.cause ->> 'name', 'plain insert') as name from rowbeat.tasks t where t.id = c.latest) l on true
order by c.kind
