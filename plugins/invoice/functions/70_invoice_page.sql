-- Pages of invoices.

-- The purchase history.
create or replace function invoice.list_invoices(request jsonb, p_refusal text default null) returns jsonb language plpgsql stable as $$
declare
    v_input   jsonb := request -> 'input';
    v_name    text := lower(invoice.tidy(v_input ->> 'customer_name'));
    v_email   text := lower(invoice.tidy(v_input ->> 'customer_email'));
    v_typed   text[] := array[invoice.tidy(v_input ->> 'from_date'), invoice.tidy(v_input ->> 'to_date')];
    v_zone    text := invoice.zone();
    v_from    timestamptz := invoice.read_date(v_typed[1])::timestamp at time zone v_zone;
    v_until   timestamptz := (invoice.read_date(v_typed[2]) + 1)::timestamp at time zone v_zone;
    v_paging  jsonb;
    v_rows    jsonb;
begin
    select invoice.paging(count(*), v_input ->> 'page', v_input ->> 'per_page') into v_paging
    from invoice.invoice i
    where (v_name = '' or strpos(lower(i.customer_name), v_name) > 0) and (v_email = '' or strpos(i.customer_email, v_email) > 0)
        and (v_from is null or i.created_at >= v_from) and (v_until is null or i.created_at < v_until);
    select coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'customer_name', i.customer_name, 'customer_email', i.customer_email,
        'rounded_payable', i.rounded_payable::text, 'email_sent', i.email_sent, 'email_fail_count', i.email_fail_count,
        'created_at', to_char(i.created_at at time zone v_zone, 'YYYY-MM-DD HH24:MI')) order by i.created_at desc, i.id desc), '[]') into v_rows
    from (
        select i.* from invoice.invoice i
        where (v_name = '' or strpos(lower(i.customer_name), v_name) > 0) and (v_email = '' or strpos(i.customer_email, v_email) > 0)
            and (v_from is null or i.created_at >= v_from) and (v_until is null or i.created_at < v_until)
        order by i.created_at desc, i.id desc limit (v_paging ->> 'per_page')::bigint offset (v_paging ->> 'skip')::bigint
    ) i;
    return invoice.show(request, 'history.html', jsonb_build_object('rows', v_rows, 'paging', v_paging,
        'customer_name', coalesce(v_input ->> 'customer_name', ''), 'customer_email', coalesce(v_input ->> 'customer_email', ''),
        'from_date', v_typed[1], 'to_date', v_typed[2]),
        coalesce(p_refusal, case when v_typed[1] <> '' and v_from is null or v_typed[2] <> '' and v_until is null then 'Enter a valid date.' end));
end $$;
comment on function invoice.list_invoices(jsonb, text) is 'The purchase history.';

create or replace function invoice.get_invoices(request jsonb) returns jsonb language sql stable as $$
    select invoice.list_invoices(request)
$$;
comment on function invoice.get_invoices(jsonb) is 'GET /invoice/';

-- The rows of the form: product_id[] beside quantity[].
create or replace function invoice.form_lines(p_input jsonb, p_filled boolean) returns jsonb language sql immutable as $$
    select coalesce(jsonb_agg(jsonb_build_object('product_id', coalesce(r.product, ''), 'quantity', coalesce(r.quantity, '')) order by r.n), '[]')
    from rows from (
        jsonb_array_elements_text(case jsonb_typeof(p_input -> 'product_id[]') when 'array' then p_input -> 'product_id[]' else '[]' end),
        jsonb_array_elements_text(case jsonb_typeof(p_input -> 'quantity[]') when 'array' then p_input -> 'quantity[]' else '[]' end)
    ) with ordinality r (product, quantity, n)
    where not p_filled or invoice.tidy(r.product) <> '' or invoice.tidy(r.quantity) <> ''
$$;
comment on function invoice.form_lines(jsonb, boolean) is 'Product rows of the form.';

-- The form, with what was typed, and blank rows after it. Of very many customers the newest are suggested; all can be typed.
create or replace function invoice.invoice_form(request jsonb, p_refusal text default null) returns jsonb language sql stable as $$
    select invoice.show(request, 'add.html', jsonb_build_object(
        'customer_name', coalesce(t.input ->> 'customer_name', ''), 'customer_email', coalesce(t.input ->> 'customer_email', ''),
        'customers', (select coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'email', c.email) order by c.name, c.email), '[]')
            from (select * from invoice.customer c where c.is_enabled order by c.id desc limit 2000) c),
        'products', (select coalesce(jsonb_agg(jsonb_build_object('id', p.id, 'label', l.label) order by p.name, p.id), '[]')
            from invoice.product p
            cross join lateral (select format('%s (%s), %s + %s %%, %s in stock', p.name, p.code, p.price, p.tax_percent, p.stock) as label) l
            where p.is_enabled),
        'lines', (select coalesce(jsonb_agg(e.line || jsonb_build_object('label', coalesce(p.name || ' (' || p.code || ')', e.line ->> 'product_id')) order by e.n), '[]')
            from jsonb_array_elements(t.lines) with ordinality e (line, n) 
            left join invoice.product p on p.id = case when e.line ->> 'product_id' ~ '^[0-9]{1,18}$' then (e.line ->> 'product_id')::bigint end)
            || (select coalesce(jsonb_agg('{"product_id": "", "quantity": ""}'::jsonb), '[]')
            from generate_series(1, case when t.input ->> 'more' is null then greatest(5 - jsonb_array_length(t.lines), 1) else 5 end)),
        'denominations', (select coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'value', d.value,
            'count', coalesce(t.input -> 'denom_*' ->> ('denom_' || d.id), '')) order by d.value desc), '[]')
            from invoice.denomination d where d.is_enabled)), p_refusal)
    from (select request -> 'input' as input, invoice.form_lines(request -> 'input', true) as lines) t
$$;
comment on function invoice.invoice_form(jsonb, text) is 'The form of a new invoice.';

-- The notes of the form: denom_<id of the denomination>. An id that is gone is refused under that name, if any were counted.
create or replace function invoice.form_notes(p_input jsonb) returns jsonb language sql stable as $$
    select coalesce(jsonb_object_agg(coalesce(d.value::text, '#' || substr(e.key, 7)), e.value), '{}')
    from jsonb_each(case jsonb_typeof(p_input -> 'denom_*') when 'object' then p_input -> 'denom_*' else '{}' end) e
    left join invoice.denomination d on d.id::text = substr(e.key, 7)
$$;
comment on function invoice.form_notes(jsonb) is 'Counted notes of the form.';

create or replace function invoice.get_invoice_form(request jsonb) returns jsonb language sql stable as $$
    select invoice.invoice_form(request)
$$;
comment on function invoice.get_invoice_form(jsonb) is 'GET /invoice/add/';

create or replace function invoice.post_invoice(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_input  jsonb := request -> 'input';
    v_id     bigint;
begin
    if v_input ->> 'more' is not null then
        return invoice.invoice_form(request);
    end if;
    v_id := invoice.create_invoice(v_input ->> 'customer_name', v_input ->> 'customer_email', invoice.form_lines(v_input, false), invoice.form_notes(v_input));
    return invoice.go_on(format('/invoice/%s/', v_id), 'Invoice generated successfully. Email queue triggered in background.');
exception when sqlstate 'RP400' or sqlstate 'RP404' or sqlstate 'RP409' then
    return invoice.invoice_form(request, sqlerrm);
end $$;
comment on function invoice.post_invoice(jsonb) is 'POST /invoice/add/';

-- One invoice. SQLSTATEs: RP404.
create or replace function invoice.show_invoice(request jsonb, p_refusal text default null) returns jsonb language plpgsql stable as $$
declare
    v_id       bigint := invoice.path_id(request);
    v_invoice  invoice.invoice;
begin
    select * into v_invoice from invoice.invoice i where i.id = v_id;
    if not found then
        perform invoice.refuse('RP404', format('Invoice %s does not exist.', v_id));
    end if;
    return invoice.show(request, 'detail.html', jsonb_build_object('invoice', invoice.invoice_document(v_invoice),
        'received', invoice.notes(v_invoice.received_denoms), 'change', invoice.notes(v_invoice.change_denoms),
        'remaining', v_invoice.change_denoms ->> 'remaining', 'sending', v_invoice.email_claim is not null), p_refusal);
end $$;
comment on function invoice.show_invoice(jsonb, text) is 'The page of an invoice.';

-- Counted notes from high to low, without those of which there are none.
create or replace function invoice.notes(p_denoms jsonb) returns jsonb language sql immutable as $$
    select coalesce(jsonb_agg(jsonb_build_object('value', e.key, 'count', e.value) order by length(e.key) desc, e.key desc), '[]')
    from jsonb_each_text(p_denoms) e where e.key <> 'remaining' and e.value <> '0'
$$;
comment on function invoice.notes(jsonb) is 'Counted notes, high to low.';

create or replace function invoice.get_invoice(request jsonb) returns jsonb language sql stable as $$
    select invoice.show_invoice(request)
$$;
comment on function invoice.get_invoice(jsonb) is 'GET /invoice/<id>/';

create or replace function invoice.post_invoice_delete(request jsonb) returns jsonb language plpgsql volatile as $$
begin
    perform invoice.delete_invoice(invoice.path_id(request), coalesce((request #>> '{input,restock}')::boolean, false));
    return invoice.go_on('/invoice/', 'Invoice deleted successfully.');
exception when sqlstate 'RP409' then
    return invoice.show_invoice(request, sqlerrm);
end $$;
comment on function invoice.post_invoice_delete(jsonb) is 'POST /invoice/<id>/delete/';

create or replace function invoice.get_invoice_delete(request jsonb) returns jsonb language sql stable as $$
    select invoice.go_on('/invoice/')
$$;
comment on function invoice.get_invoice_delete(jsonb) is 'GET /invoice/<id>/delete/';

create or replace function invoice.post_invoice_resend(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_id  bigint := invoice.path_id(request);
begin
    if invoice.resend_email(v_id, coalesce((request #>> '{input,confirmed}')::boolean, false)) is null then
        return invoice.go_on(format('/invoice/%s/', v_id), 'The email could not be queued; it will be tried again in a few minutes.');
    end if;
    return invoice.go_on(format('/invoice/%s/', v_id), 'Email queue triggered in background.');
exception when sqlstate 'RP409' then
    return invoice.show_invoice(request, sqlerrm);
end $$;
comment on function invoice.post_invoice_resend(jsonb) is 'POST /invoice/<id>/resend/';
