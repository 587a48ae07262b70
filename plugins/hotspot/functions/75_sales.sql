-- Sales as staff find, page through and export them.

-- A text as a pattern that it is part of.
create or replace function hotspot.part_pattern(p_text text) returns text language sql immutable as $$
    select '%' || regexp_replace(trim(p_text), '([\\%_])', '\\\1', 'g') || '%' where trim(p_text) <> ''
$$;
comment on function hotspot.part_pattern(text) is 'A pattern for like; null: everything fits.';

-- The sales that fit, oldest first. What the filters come to is computed once, not for each sale. Filters: search, payment_status, voucher_code_received, date (in the setting's zone), created_by (a user name).
create or replace function hotspot.find_sales(p_filters jsonb, p_limit bigint, p_offset bigint) returns setof hotspot.sale language sql stable as $$
    with f as materialized (
        select hotspot.part_pattern(p_filters ->> 'search') as pattern, (p_filters ->> 'date')::date::timestamp at time zone hotspot.zone() as day,
            ((p_filters ->> 'date')::date + 1)::timestamp at time zone hotspot.zone() as next_day
    )
    select s.* from hotspot.sale s cross join f
    where (f.pattern is null or s.full_name ilike f.pattern or s.phone_number ilike f.pattern or s.voucher_code ilike f.pattern or s.mtn_transaction_id ilike f.pattern)
        and s.payment_status = coalesce((p_filters ->> 'payment_status')::boolean, s.payment_status)
        and s.voucher_code_received = coalesce((p_filters ->> 'voucher_code_received')::boolean, s.voucher_code_received)
        and (f.day is null or s.created_at >= f.day and s.created_at < f.next_day)
        and (coalesce(p_filters ->> 'created_by', '') = '' or s.created_by = (select t.id from hotspot.staff t where t.username = p_filters ->> 'created_by'))
    order by s.created_at, s.id limit p_limit offset p_offset
$$;
comment on function hotspot.find_sales(jsonb, bigint, bigint) is 'The sales that fit some filters.';

-- A page of 100 of them, as they are shown: without the token that is a customer's key.
create or replace function hotspot.sales_page(p_filters jsonb) returns jsonb language sql stable as $$
    select jsonb_build_object('page', p.page, 'more', count(f.id) > 100,
        'sales', coalesce(jsonb_agg(to_jsonb(f) - array['n', 'checkout_token', 'hotspot_password'] || jsonb_build_object('created_by', t.username,
            'local_date', to_char(f.created_at at time zone p.zone, 'YYYY-MM-DD HH24:MI:SS')) order by f.n) filter (where f.n <= 100), '[]'))
    from (select greatest(coalesce((p_filters ->> 'page')::bigint, 1), 1) as page, hotspot.zone() as zone offset 0) p
    left join lateral (select s.*, row_number() over (order by s.created_at, s.id) as n from hotspot.find_sales(p_filters, 101, (p.page - 1) * 100) s) f on true
    left join hotspot.staff t on t.id = f.created_by
    group by p.page, p.zone
$$;
comment on function hotspot.sales_page(jsonb) is 'A page of sales.';

create or replace function hotspot.get_sales_api(request jsonb) returns jsonb language sql stable as $$
    select jsonb_build_object('status', 200, 'body', hotspot.sales_page(request -> 'input'))
$$;
comment on function hotspot.get_sales_api(jsonb) is 'GET /api/hotspot/sales';

-- The rows of the export, with their head. Of a phone number only a leading country's code becomes 0.
create or replace function hotspot.export_rows(p_filters jsonb) returns jsonb language sql stable as $$
    with z as materialized (select hotspot.zone() as zone)
    select jsonb_build_array(jsonb_build_array('Full_Name', 'Phone_Number', 'Data_Bundle', 'Amount(¢)', 'Voucher_Code', 'mtnTransactionId', 'Payment_Status',
            'Voucher_Code_Recieved', 'Date_Created', 'created_by'))
        || coalesce(jsonb_agg(jsonb_build_array(s.full_name, regexp_replace(s.phone_number, '^233', '0'), s.data_label, trim_scale(s.amount), s.voucher_code,
            s.mtn_transaction_id, s.payment_status, s.voucher_code_received, to_char(s.created_at at time zone z.zone, 'YYYY-MM-DD HH24:MI:SS'),
            coalesce(t.username, regexp_replace(s.phone_number, '^233', '0'))) order by s.created_at, s.id), '[]')
    from z cross join hotspot.find_sales(p_filters, null, 0) s left join hotspot.staff t on t.id = s.created_by
$$;
comment on function hotspot.export_rows(jsonb) is 'The rows of an export.';

-- An export is on record, so it is no GET.
create or replace function hotspot.post_export(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_kind  text := request #>> '{input,format}';
    v_file  text := 'Kaneshi Transactions.' || v_kind;
    v_rows  jsonb := hotspot.export_rows((request -> 'input') - 'format');
begin
    if v_kind = 'xlsx' and jsonb_array_length(v_rows) > 1048576 then
        raise exception 'a sheet of Excel holds 1,048,575 sales and its head: filter them, or take the CSV' using errcode = 'RP400';
    end if;
    perform hotspot.add_log(request ->> 'actor', 'export', 'sale', null, v_file, format('%s transactions %s', jsonb_array_length(v_rows) - 1,
        jsonb_strip_nulls((request -> 'input') - 'format')));
    return jsonb_build_object('kind', v_kind, 'body', v_rows, 'headers', jsonb_build_object('content-disposition', format('attachment; filename="%s"', v_file)));
end $$;
comment on function hotspot.post_export(jsonb) is 'POST /hotspot/sales/export';
