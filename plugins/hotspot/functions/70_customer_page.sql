-- The customers' pages. Who somebody is is his cookie: a page shows the visit of that token and nothing else.

-- A page of a template.
create or replace function hotspot.page(p_template text, p_page text, p_data jsonb) returns jsonb language sql stable as $$
    select jsonb_build_object('kind', 'html', 'template', p_template, 'headers', '{"cache-control": "no-store"}'::jsonb,
        'data', p_data || jsonb_build_object('page', p_page))
$$;
comment on function hotspot.page(text, text, jsonb) is 'An answer that shows a page.';

create or replace function hotspot.redirect(p_location text) returns jsonb language sql immutable as $$
    select jsonb_build_object('kind', 'redirect', 'location', p_location, 'headers', '{"cache-control": "no-store"}'::jsonb)
$$;
comment on function hotspot.redirect(text) is 'An answer that leads elsewhere.';

-- The visit of a request's cookie; null: it has none.
create or replace function hotspot.token_of(request jsonb) returns uuid language sql immutable as $$
    select (hotspot.uuids(array[lower(request #>> '{cookies,hotspot_checkout}')]))[1]
$$;
comment on function hotspot.token_of(jsonb) is 'The visit of a request.';

create or replace function hotspot.form_page(p_values jsonb, p_error text) returns jsonb language sql stable as $$
    select hotspot.page('customer.html', 'form', jsonb_build_object('error', p_error,
        'name', coalesce(p_values ->> 'Full_Name', ''), 'phone', coalesce(p_values ->> 'Phone_Number', ''), 'chosen', coalesce(p_values ->> 'Data_Bundle', ''),
        'bundles', (select coalesce(jsonb_agg(jsonb_build_object('code', o.code, 'label', format('GHc%s: %s', trim_scale(o.price), hotspot.data_text(o.data_label)))), '[]')
            from hotspot.offered() o)))
$$;
comment on function hotspot.form_page(jsonb, text) is 'The form, perhaps with what was wrong.';

create or replace function hotspot.get_form(request jsonb) returns jsonb language sql stable as $$
    select hotspot.form_page('{}', null)
$$;
comment on function hotspot.get_form(jsonb) is 'GET /transactions/';

create or replace function hotspot.post_form(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_input  jsonb := request -> 'input';
    v_token  uuid;
begin
    v_token := hotspot.start_checkout(v_input ->> 'Full_Name', v_input ->> 'Phone_Number', v_input ->> 'Data_Bundle');
    return hotspot.redirect('/transactions/otp/') || jsonb_build_object('cookies', jsonb_build_object('hotspot_checkout',
        jsonb_build_object('value', v_token, 'max_age', 86400, 'path', '/transactions', 'same_site', 'Lax')));
exception when sqlstate 'RP400' then
    return hotspot.form_page(v_input, sqlerrm);
end $$;
comment on function hotspot.post_form(jsonb) is 'POST /transactions/';

create or replace function hotspot.get_otp(request jsonb) returns jsonb language sql stable as $$
    select case when hotspot.is_open(hotspot.token_of(request)) then hotspot.page('customer.html', 'otp', '{"error": null}') else hotspot.redirect('/transactions/') end
$$;
comment on function hotspot.get_otp(jsonb) is 'GET /transactions/otp/';

create or replace function hotspot.post_otp(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_token  uuid := hotspot.token_of(request);
    v_open   boolean := hotspot.is_open(v_token);
begin
    if hotspot.verify_otp(v_token, request #>> '{input,otp}') is not null then
        return hotspot.redirect('/transactions/success/');
    elsif v_open then
        return hotspot.page('customer.html', 'otp', '{"error": "Enter the correct voucher code"}');
    end if;
    return hotspot.redirect('/transactions/');
end $$;
comment on function hotspot.post_otp(jsonb) is 'POST /transactions/otp/';

create or replace function hotspot.get_success(request jsonb) returns jsonb language sql stable as $$
    select coalesce((select hotspot.page('customer.html', 'success', s.status || jsonb_build_object(
            'lines', to_jsonb(string_to_array(s.status ->> 'details', E'\n')), 'waits', s.status ->> 'status' in ('requested', 'pending', 'paid')))
        from (select hotspot.status_of(hotspot.token_of(request)) as status) s where s.status is not null), hotspot.redirect('/transactions/'))
$$;
comment on function hotspot.get_success(jsonb) is 'GET /transactions/success/';

create or replace function hotspot.get_status(request jsonb) returns jsonb language plpgsql stable as $$
declare
    v_status  jsonb := hotspot.status_of(hotspot.token_of(request));
begin
    if v_status is null then
        perform hotspot.refuse('RP404', 'There is no payment of yours.');
    end if;
    return jsonb_build_object('status', 200, 'body', v_status, 'headers', '{"cache-control": "no-store"}'::jsonb);
end $$;
comment on function hotspot.get_status(jsonb) is 'GET /transactions/status/';
