-- Pages of the masters: three lists and three forms, told apart by the first part of the path.

-- Rows of all masters as their lists show and search them.
create or replace view invoice.master_row as
select 'products' as master, p.id, 0 as rank, lower(p.name) as sorted, lower(p.name || E'\n' || p.code) as searched, p.is_enabled,
    jsonb_build_array(p.name, p.code, p.price::text, p.tax_percent::text, p.stock::text) as cells
from invoice.product p
union all
select 'denominations', d.id, -d.value, '', d.value::text, d.is_enabled, jsonb_build_array(d.value::text) from invoice.denomination d
union all
select 'customers', c.id, 0, lower(c.name), lower(c.name || E'\n' || c.email), c.is_enabled, jsonb_build_array(c.name, c.email) from invoice.customer c;
comment on view invoice.master_row is 'Rows of the masters as their lists show them.';

-- What the pages of a master say: {"master", "one", "labels", "fields"}.
create or replace function invoice.describe_master(request jsonb) returns jsonb language sql immutable as $$
    select jsonb_build_object('master', m.master) || case m.master
        when 'products' then '{"one": "Product", "title": "Products", "search": "Product name or code", "fields": [
            {"name": "name", "label": "Product Name", "type": "text", "step": ""}, {"name": "code", "label": "Product Code", "type": "text", "step": ""},
            {"name": "price", "label": "Unit Price", "type": "number", "step": "0.01"}, {"name": "tax_percent", "label": "Tax Percentage", "type": "number", "step": "0.01"},
            {"name": "stock", "label": "Available Stock", "type": "number", "step": "1"}]}'::jsonb
        when 'denominations' then '{"one": "Denomination", "title": "Denominations", "search": "Denomination value", "fields": [
            {"name": "value", "label": "Denomination Value", "type": "number", "step": "1"}]}'::jsonb
        else '{"one": "Customer", "title": "Customers", "search": "Customer name or email", "fields": [
            {"name": "name", "label": "Customer Name", "type": "text", "step": ""}, {"name": "email", "label": "Customer Email", "type": "email", "step": ""}]}'::jsonb
    end
    from (select split_part(request ->> 'path', '/', 2) as master) m
$$;
comment on function invoice.describe_master(jsonb) is 'What a master''s pages say.';

-- A list. Denominations are found by their exact value.
create or replace function invoice.list_master(request jsonb, p_refusal text default null) returns jsonb language plpgsql stable as $$
declare
    v_about   jsonb := invoice.describe_master(request);
    v_master  text := v_about ->> 'master';
    v_typed   text := invoice.tidy(request #>> '{input,search}');
    v_search  text := case when v_master = 'denominations' then coalesce(nullif(ltrim(v_typed, '0'), ''), v_typed) else lower(v_typed) end;
    v_exact   boolean := v_master = 'denominations';
    v_paging  jsonb;
    v_rows    jsonb;
begin
    select invoice.paging(count(*), request #>> '{input,page}', request #>> '{input,per_page}') into v_paging
    from invoice.master_row r
    where r.master = v_master and (v_search = '' or case when v_exact then r.searched = v_search else strpos(r.searched, v_search) > 0 end);
    select coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'cells', r.cells, 'is_enabled', r.is_enabled) order by r.rank, r.sorted, r.id), '[]') into v_rows
    from (
        select r.* from invoice.master_row r
        where r.master = v_master and (v_search = '' or case when v_exact then r.searched = v_search else strpos(r.searched, v_search) > 0 end)
        order by r.rank, r.sorted, r.id limit (v_paging ->> 'per_page')::bigint offset (v_paging ->> 'skip')::bigint
    ) r;
    return invoice.show(request, 'list.html', v_about || jsonb_build_object('rows', v_rows, 'paging', v_paging, 'typed', v_typed), p_refusal);
end $$;
comment on function invoice.list_master(jsonb, text) is 'The list of a master.';

create or replace function invoice.get_masters(request jsonb) returns jsonb language sql stable as $$
    select invoice.list_master(request)
$$;
comment on function invoice.get_masters(jsonb) is 'GET /products/, /denominations/, /customers/';

-- The values of a row by the names of its form's fields; null when there is no such row.
create or replace function invoice.master_values(p_master text, p_id bigint) returns jsonb language sql stable as $$
    select case p_master
        when 'products' then (select jsonb_build_object('name', p.name, 'code', p.code, 'price', p.price::text, 'tax_percent', p.tax_percent::text,
            'stock', p.stock::text, 'is_enabled', p.is_enabled::text) from invoice.product p where p.id = p_id)
        when 'denominations' then (select jsonb_build_object('value', d.value::text, 'is_enabled', d.is_enabled::text) from invoice.denomination d where d.id = p_id)
        else (select jsonb_build_object('name', c.name, 'email', c.email, 'is_enabled', c.is_enabled::text) from invoice.customer c where c.id = p_id)
    end
$$;
comment on function invoice.master_values(text, bigint) is 'A row of a master as its form shows it.';

-- The form: of the row in the path, or a blank one; what was typed counts more. SQLSTATEs: RP404.
create or replace function invoice.master_form(request jsonb, p_refusal text default null) returns jsonb language plpgsql stable as $$
declare
    v_about   jsonb := invoice.describe_master(request);
    v_id      bigint := case when request #>> '{input,id}' is not null then invoice.path_id(request) end;
    v_values  jsonb := case when v_id is null then '{}' else invoice.master_values(v_about ->> 'master', v_id) end;
begin
    if v_values is null then
        perform invoice.refuse('RP404', format('%s %s does not exist.', v_about ->> 'one', v_id));
    end if;
    v_values := '{"is_enabled": "true"}' || v_values || jsonb_strip_nulls(request -> 'input');
    return invoice.show(request, 'form.html', v_about || jsonb_build_object('id', v_id,
        'enabled', invoice.read_status(v_values ->> 'is_enabled', true),
        'fields', (select jsonb_agg(f || jsonb_build_object('value', coalesce(v_values ->> (f ->> 'name'), ''))) from jsonb_array_elements(v_about -> 'fields') f)), p_refusal);
end $$;
comment on function invoice.master_form(jsonb, text) is 'The form of a master.';

create or replace function invoice.get_master_form(request jsonb) returns jsonb language sql stable as $$
    select invoice.master_form(request)
$$;
comment on function invoice.get_master_form(jsonb) is 'GET /products/add/, /products/<id>/edit/ and the like';

create or replace function invoice.post_master(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_about  jsonb := invoice.describe_master(request);
    v_id     bigint := case when request #>> '{input,id}' is not null then invoice.path_id(request) end;
begin
    case v_about ->> 'master'
        when 'products' then perform invoice.save_product(v_id, request -> 'input');
        when 'denominations' then perform invoice.save_denomination(v_id, request -> 'input');
        else perform invoice.save_customer(v_id, request -> 'input');
    end case;
    return invoice.go_on(format('/%s/', v_about ->> 'master'),
        format('%s %s successfully.', v_about ->> 'one', case when v_id is null then 'created' else 'updated' end));
exception when sqlstate 'RP400' or sqlstate 'RP409' then
    return invoice.master_form(request, sqlerrm);
end $$;
comment on function invoice.post_master(jsonb) is 'POST /products/add/, /products/<id>/edit/ and the like';

create or replace function invoice.post_master_delete(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_about  jsonb := invoice.describe_master(request);
    v_id     bigint := invoice.path_id(request);
begin
    case v_about ->> 'master'
        when 'products' then perform invoice.delete_product(v_id);
        when 'denominations' then delete from invoice.denomination d where d.id = v_id;
        else delete from invoice.customer c where c.id = v_id;
    end case;
    if not found then
        perform invoice.refuse('RP404', format('%s %s does not exist.', v_about ->> 'one', v_id));
    end if;
    return invoice.go_on(format('/%s/', v_about ->> 'master'), format('%s deleted successfully.', v_about ->> 'one'));
exception when sqlstate 'RP409' then
    return invoice.list_master(request, sqlerrm);
end $$;
comment on function invoice.post_master_delete(jsonb) is 'POST /products/<id>/delete/ and the like';

create or replace function invoice.get_master_delete(request jsonb) returns jsonb language sql stable as $$
    select invoice.go_on(format('/%s/', split_part(request ->> 'path', '/', 2)))
$$;
comment on function invoice.get_master_delete(jsonb) is 'GET /products/<id>/delete/ and the like';
