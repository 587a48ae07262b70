-- A customer orders something, and the order is shipped by a task: a plain insert. Returns the task's id.
with ordered as (
    insert into shop.orders (customer, article)
    select (array['Ann', 'Bob', 'Cleo', 'Dan'])[1 + floor(random() * 4)], s.article from shop.stock s order by random() limit 1
    returning id
)
insert into rowbeat.task (definition, payload) select 'ship', jsonb_build_object('order', id) from ordered returning id
