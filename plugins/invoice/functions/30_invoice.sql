-- Making and deleting invoices. Locks, in this order: products by id, then the customer; of a deleted one the mail's task, the invoice, products by id.

-- Promises: the lines as typed, rows of one product merged, in order of entry. SQLSTATEs: RP400.
create or replace function invoice.read_lines(p_lines jsonb) returns table (product_id bigint, quantity bigint, entry bigint)
language plpgsql immutable as $$
declare
    v_problem  text;
begin
    select case
        when count(*) = 0 then 'Add at least one product line.'
        when bool_or(t.product = '' or t.quantity = '') then 'Each bill row needs product and quantity.'
        when not bool_and(case when invoice.is_whole(t.product) and invoice.is_whole(t.quantity)
            then abs(t.product::numeric) <= 9223372036854775807 and abs(t.quantity::numeric) <= 2147483647 else false end) then 'Invalid product or quantity value.'
        when bool_or(case when invoice.is_whole(t.quantity) then t.quantity::numeric < 1 else false end) then 'Quantity must be greater than zero.'
    end into v_problem
    from invoice.typed_lines(p_lines) t;
    if v_problem is not null then
        perform invoice.refuse('RP400', v_problem);
    end if;
    return query select t.product::bigint, sum(t.quantity::bigint)::bigint, min(t.n) from invoice.typed_lines(p_lines) t group by 1 order by 3;
end $$;
comment on function invoice.read_lines(jsonb) is 'The lines of a new invoice, checked and merged.';

-- The rows as typed, wholly blank ones left out.
create or replace function invoice.typed_lines(p_lines jsonb) returns table (product text, quantity text, n bigint) language sql immutable as $$
    select t.product, t.quantity, e.n
    from jsonb_array_elements(case jsonb_typeof(p_lines) when 'array' then p_lines else '[]' end) with ordinality e (line, n)
    cross join lateral (select coalesce(invoice.typed(e.line -> 'product_id'), '') as product, coalesce(invoice.typed(e.line -> 'quantity'), '') as quantity) t
    where t.product <> '' or t.quantity <> ''
$$;
comment on function invoice.typed_lines(jsonb) is 'Rows of the form that are not blank.';

-- Promises: the lines with what they cost now; their products stay locked until the transaction ends, so the stock stands.
-- Locks: the products, in order of their ids. SQLSTATEs: RP400, RP404, RP409.
create or replace function invoice.price_lines(p_lines jsonb) returns setof invoice.priced_line language plpgsql volatile as $$
declare
    v_ids         bigint[];
    v_quantities  bigint[];
    v_problem     text[];
begin
    select array_agg(l.product_id order by l.entry), array_agg(l.quantity order by l.entry) into v_ids, v_quantities from invoice.read_lines(p_lines) l;
    perform 1 from invoice.product p where p.id = any (v_ids) order by p.id for no key update;
    select case
        when bool_or(p.id is null) then array['RP404', 'One or more selected products do not exist.']
        when not bool_and(p.is_enabled) then
            array['RP409', (array_agg(format('%s is disabled.', p.name) order by l.n) filter (where not p.is_enabled))[1]]
        when bool_or(p.stock < l.quantity) then array['RP409',
            (array_agg(format('Insufficient stock for %s. Available stock is %s.', p.name, p.stock) order by l.n) filter (where p.stock < l.quantity))[1]]
    end into v_problem
    from unnest(v_ids, v_quantities) with ordinality l (id, quantity, n) left join invoice.product p on p.id = l.id;
    if v_problem is not null then
        perform invoice.refuse(v_problem[1], v_problem[2]);
    end if;
    return query
    select p.id, p.name::text, p.code::text, p.price, p.tax_percent, l.quantity, s.subtotal, t.tax, s.subtotal + t.tax
    from unnest(v_ids, v_quantities) with ordinality l (id, quantity, n) join invoice.product p on p.id = l.id
    cross join lateral (select p.price * l.quantity as subtotal) s
    cross join lateral (select invoice.round_half_even(s.subtotal * p.tax_percent * 0.01, 2) as tax) t
    order by l.n;
end $$;
comment on function invoice.price_lines(jsonb) is 'The lines of a new invoice, computed; locks their products.';

-- Promises: the counted notes: of every enabled denomination, zeros included. SQLSTATEs: RP400, RP409.
create or replace function invoice.read_notes(p_received jsonb) returns jsonb language plpgsql stable as $$
declare
    v_received  jsonb := case jsonb_typeof(p_received) when 'object' then p_received else '{}' end;
    v_problem   text[];
begin
    select coalesce(
        (array_agg(array['RP400', format('Invalid denomination count for %s.', n.value)] order by length(n.value) desc, n.value desc) filter (where not n.whole))[1:1],
        (array_agg(array['RP400', 'Denomination count cannot be negative.']) filter (where n.count < 0))[1:1],
        (array_agg(array['RP409', format('Denomination %s is not accepted.', n.value)] order by length(n.value) desc, n.value desc)
            filter (where n.count > 0 and not n.accepted))[1:1])
    into v_problem
    from (
        select e.key as value, t.whole, case when t.whole and t.text <> '' then t.text::numeric else 0 end as count,
            exists (select from invoice.denomination d where d.is_enabled and d.value::text = e.key) as accepted
        from jsonb_each(v_received) e
        cross join lateral (select coalesce(invoice.typed(e.value), '') as text) r
        cross join lateral (select r.text, r.text = '' or invoice.is_whole(r.text) as whole) t
    ) n;
    if v_problem is not null then
        perform invoice.refuse(v_problem[1][1], v_problem[1][2]);
    end if;
    return (select coalesce(jsonb_object_agg(d.value, coalesce(nullif(invoice.typed(v_received -> d.value::text), ''), '0')::numeric), '{}')
        from invoice.denomination d where d.is_enabled);
end $$;
comment on function invoice.read_notes(jsonb) is 'The notes of a new invoice, checked.';

-- Promises: the customer is there under this name; a change of it is on record. Locks: the customer. Called by: create_invoice.
create or replace function invoice.note_customer(p_name text, p_email text, p_invoice_id bigint) returns void language plpgsql volatile as $$
declare
    v_customer  invoice.customer;
begin
    select * into v_customer from invoice.customer c where c.email = p_email for update;
    if not found then
        insert into invoice.customer (name, email) values (p_name, p_email) on conflict (email) do nothing;
        -- Somebody else's invoice may have brought it in meanwhile.
        select * into v_customer from invoice.customer c where c.email = p_email for update;
    end if;
    if v_customer.name <> p_name then
        update invoice.customer c set name = p_name where c.id = v_customer.id;
        insert into invoice.customer_name_change (customer_id, old_name, new_name, invoice_id) values (v_customer.id, v_customer.name, p_name, p_invoice_id);
    end if;
end $$;
comment on function invoice.note_customer(text, text, bigint) is 'Keeps the customer of an invoice in the master.';

-- The buyer's address, checked. SQLSTATEs: RP400, RP409.
create or replace function invoice.read_buyer(p_email text) returns text language plpgsql stable as $$
declare
    v_email  text := lower(invoice.tidy(p_email));
begin
    if v_email = '' then
        perform invoice.refuse('RP400', 'Customer email is required.');
    elsif not invoice.is_address(v_email) then
        perform invoice.refuse('RP400', 'Enter a valid email address.');
    elsif exists (select from invoice.customer c where c.email = v_email and not c.is_enabled) then
        perform invoice.refuse('RP409', format('Customer %s is disabled.', v_email));
    end if;
    return v_email;
end $$;
comment on function invoice.read_buyer(text) is 'The address of a new invoice, checked.';

-- Promises: the stock is less by what the lines say, or nothing is done. Called by: create_invoice, which holds the products. SQLSTATEs: RP409.
create or replace function invoice.take_stock(p_lines invoice.priced_line[]) returns void language plpgsql volatile as $$
declare
    v_taken  bigint;
begin
    update invoice.product p set stock = p.stock - l.quantity
    from unnest(p_lines) l where p.id = l.product_id and p.stock >= l.quantity;
    get diagnostics v_taken = row_count;
    if v_taken <> cardinality(p_lines) then
        perform invoice.refuse('RP409', 'The stock has changed meanwhile.');
    end if;
end $$;
comment on function invoice.take_stock(invoice.priced_line[]) is 'Takes the lines of an invoice out of the stock.';

-- Promises: the invoice with everything that belongs to it, or nothing at all; the first thing that is wrong is told. Returns its id.
--   A mail that cannot be queued does not stop it. Locks: products by id, then the customer. SQLSTATEs: RP400, RP404, RP409.
create or replace function invoice.create_invoice(p_customer_name text, p_customer_email text, p_lines jsonb, p_received jsonb) returns bigint
language plpgsql volatile as $$
declare
    v_name      text := invoice.tidy(p_customer_name);
    v_email     text;
    v_lines     invoice.priced_line[];
    v_received  jsonb;
    v_invoice   invoice.invoice;
    v_gross     numeric;
    v_tax       numeric;
    v_paid      numeric;
    v_queued    record;
begin
    if v_name = '' then
        perform invoice.refuse('RP400', 'Customer name is required.');
    elsif length(v_name) > 200 then
        perform invoice.refuse('RP400', 'Customer name is too long.');
    end if;
    v_email := invoice.read_buyer(p_customer_email);
    v_lines := array(select l from invoice.price_lines(p_lines) l);
    v_received := invoice.read_notes(p_received);
    select sum(l.line_subtotal), sum(l.line_tax) into v_gross, v_tax from unnest(v_lines) l;
    v_paid := (select coalesce(sum(r.key::numeric * r.value::numeric), 0) from jsonb_each_text(v_received) r);
    if v_paid < trunc(v_gross + v_tax) then
        perform invoice.refuse('RP400', 'Cash paid by customer is less than rounded payable amount.');
    elsif greatest(v_gross + v_tax, v_paid) > 9999999999.99 then
        perform invoice.refuse('RP400', 'Amount is too large.');
    end if;
    v_invoice.id := nextval('invoice.invoice_id_seq');
    select * into v_queued from invoice.enqueue_email(v_invoice.id, false);
    insert into invoice.invoice (id, customer_name, customer_email, gross_amount, tax_amount, net_amount, rounded_payable, paid_amount, balance_amount,
        received_denoms, change_denoms, email_fail_count, email_last_error, email_task)
    overriding system value
    values (v_invoice.id, v_name, v_email, v_gross, v_tax, v_gross + v_tax, trunc(v_gross + v_tax), v_paid, v_paid - trunc(v_gross + v_tax),
        v_received, invoice.make_change(v_paid - trunc(v_gross + v_tax)), case when v_queued.problem is null then 0 else 1 end,
        coalesce(v_queued.problem, ''), v_queued.task_id);
    perform invoice.note_customer(v_name, v_email, v_invoice.id);
    insert into invoice.invoice_item (invoice_id, product_id, product_name, product_code, unit_price, tax_percent, quantity, line_subtotal, line_tax, line_total)
    select v_invoice.id, l.product_id, l.product_name, l.product_code, l.unit_price, l.tax_percent, l.quantity, l.line_subtotal, l.line_tax, l.line_total
    from unnest(v_lines) with ordinality l (product_id, product_name, product_code, unit_price, tax_percent, quantity, line_subtotal, line_tax,
        line_total, n) order by l.n;
    perform invoice.take_stock(v_lines);
    return v_invoice.id;
end $$;
comment on function invoice.create_invoice(text, text, jsonb, jsonb) is 'Makes an invoice.';

-- Promises: the invoice and its lines are gone, and its mail is not tried any more; with p_restock its goods are in stock again.
-- Locks: the mail's task (first, as whoever settles it does), the invoice, its products by id. SQLSTATEs: RP404, RP409.
create or replace function invoice.delete_invoice(p_invoice_id bigint, p_restock boolean default false) returns void language plpgsql volatile as $$
begin
    delete from rowbeat.own_task t
    where t.id = (select i.email_task from invoice.invoice i where i.id = p_invoice_id) and t.finished_at is null;
    perform 1 from invoice.invoice i where i.id = p_invoice_id for update;
    if not found then
        perform invoice.refuse('RP404', format('Invoice %s does not exist.', p_invoice_id));
    end if;
    if p_restock then
        perform 1 from invoice.product p
        where p.id in (select l.product_id from invoice.invoice_item l where l.invoice_id = p_invoice_id) order by p.id for no key update;
        if exists (select from invoice.invoice_item l join invoice.product p on p.id = l.product_id
                where l.invoice_id = p_invoice_id and p.stock::bigint + l.quantity > 2147483647) then
            perform invoice.refuse('RP409', 'Available Stock is too large.');
        end if;
        update invoice.product p set stock = p.stock + l.quantity
        from invoice.invoice_item l where l.invoice_id = p_invoice_id and p.id = l.product_id;
    end if;
    delete from invoice.invoice i where i.id = p_invoice_id;
end $$;
comment on function invoice.delete_invoice(bigint, boolean) is 'Deletes an invoice, if wanted with its goods back in stock.';
