-- What all pages have in common: the message of the page before, pages of lists, numbers in paths.

-- A message as a cookie's value, and back; what is none is null.
create or replace function invoice.pack_message(p_text text) returns text language sql immutable as $$
    select translate(encode(convert_to(left(p_text, 500), 'UTF8'), 'base64'), E'+/=\n', '-_')
$$;
comment on function invoice.pack_message(text) is 'A message as a cookie''s value.';

create or replace function invoice.unpack_message(p_cookie text) returns text language plpgsql immutable as $$
begin
    return nullif(convert_from(decode(rpad(translate(left(p_cookie, 3000), '-_', '+/'), ((length(left(p_cookie, 3000)) + 3) / 4) * 4, '='), 'base64'), 'UTF8'), '');
exception when others then
    return null;
end $$;
comment on function invoice.unpack_message(text) is 'The message of a cookie.';

-- A page. One message: the refusal, or that of the page before, which is told once.
create or replace function invoice.show(request jsonb, p_template text, p_data jsonb, p_refusal text default null) returns jsonb language sql stable as $$
    select jsonb_build_object('kind', 'html', 'template', p_template,
        'data', p_data || jsonb_build_object('refusal', p_refusal, 'message', case when p_refusal is null then invoice.unpack_message(c.cookie) end),
        'cookies', case when c.cookie is null then '{}' else jsonb_build_object('invoice_message', null) end)
    from (select request #>> '{cookies,invoice_message}' as cookie) c
$$;
comment on function invoice.show(jsonb, text, jsonb, text) is 'The answer that is a page.';

-- On to another page, which shows the message.
create or replace function invoice.go_on(p_location text, p_message text default null) returns jsonb language sql immutable as $$
    select jsonb_build_object('kind', 'redirect', 'status', 302, 'location', p_location, 'cookies', case when p_message is null then '{}' else
        jsonb_build_object('invoice_message', jsonb_build_object('value', invoice.pack_message(p_message), 'max_age', 60)) end)
$$;
comment on function invoice.go_on(text, text) is 'The answer that leads to another page.';

-- The number in a path. SQLSTATEs: RP404 (it is none).
create or replace function invoice.path_id(request jsonb) returns bigint language plpgsql immutable as $$
declare
    v_text  text := request #>> '{input,id}';
begin
    if v_text !~ '^[0-9]{1,18}$' then
        perform invoice.refuse('RP404', 'There is nothing here.');
    end if;
    return v_text::bigint;
end $$;
comment on function invoice.path_id(jsonb) is 'The id in a path.';

-- Which part of a list is shown: 10, 20, 50 or 100 a page, never past the end.
create or replace function invoice.paging(p_total bigint, p_page text, p_per_page text) returns jsonb language sql immutable as $$
    select jsonb_build_object('total', p_total, 'page', p.page, 'pages', n.pages, 'per_page', s.per_page, 'skip', (p.page - 1) * s.per_page, 'choices', '[10, 20, 50, 100]'::jsonb)
    from (select case when invoice.tidy(p_per_page) in ('10', '20', '50', '100') then invoice.tidy(p_per_page)::integer else 10 end as per_page) s
    cross join lateral (select greatest(1, (p_total + s.per_page - 1) / s.per_page) as pages) n
    cross join lateral (select case when invoice.is_whole(invoice.tidy(p_page)) then least(greatest(invoice.tidy(p_page)::numeric, 1), n.pages)::bigint else 1 end as page) p
$$;
comment on function invoice.paging(bigint, text, text) is 'Which part of a list is shown.';

-- A date as it is written in forms; null when it is none.
create or replace function invoice.read_date(p_text text) returns date language plpgsql immutable as $$
begin
    return case when p_text ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then p_text::date end;
exception when data_exception then
    return null;
end $$;
comment on function invoice.read_date(text) is 'A date of a form.';
