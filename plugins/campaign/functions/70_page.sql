-- Pages, in parts: cells, fields, tables, and the answer around them. What they show is escaped by the template.

-- A cell: a text, or a link.
create or replace function campaign.cell(p_text text, p_href text default null) returns jsonb language sql immutable as $$
    select jsonb_strip_nulls(jsonb_build_object('text', coalesce(p_text, '–'), 'href', p_href))
$$;
comment on function campaign.cell(text, text) is 'A cell of a page''s table.';

create or replace function campaign.bar_cell(p_spend numeric, p_budget numeric) returns jsonb language sql stable as $$
    select jsonb_build_object('text', format('$%s of $%s, %s %%', p_spend, p_budget, b.percent), 'bar', to_jsonb(b))
    from campaign.budget_bar(p_spend, p_budget) b
$$;
comment on function campaign.bar_cell(numeric, numeric) is 'A budget bar.';

create or replace function campaign.status_text(p_status text, p_reason text) returns text language sql immutable as $$
    select p_status || coalesce(' (' || p_reason || ')', '')
$$;
comment on function campaign.status_text(text, text) is 'A status with its reason.';

create or replace function campaign.time_text(p_at timestamptz, p_zone text) returns text language sql stable as $$
    select to_char(p_at at time zone p_zone, 'YYYY-MM-DD HH24:MI:SS')
$$;
comment on function campaign.time_text(timestamptz, text) is 'A time as pages show it.';

create or replace function campaign.days() returns jsonb language sql immutable as $$
    select jsonb_agg(jsonb_build_object('value', n::text, 'label', d) order by n)
    from unnest(array['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']) with ordinality u (d, n)
$$;
comment on function campaign.days() is 'The days of the week, to choose from.';

create or replace function campaign.brands() returns jsonb language sql stable as $$
    select coalesce(jsonb_agg(jsonb_build_object('value', b.id::text, 'label', b.name) order by b.name), '[]') from campaign.brand b
$$;
comment on function campaign.brands() is 'The brands, to choose from.';

-- Promises: a field of a form with the value that p_values has of it. p_options: a list of texts, or of {"value", "label"}.
create or replace function campaign.field(p_name text, p_label text, p_type text, p_values jsonb, p_options jsonb default null, p_required boolean default null)
returns jsonb language sql immutable as $$
    select jsonb_strip_nulls(jsonb_build_object('name', p_name, 'label', p_label, 'type', p_type, 'value', coalesce(p_values ->> p_name, ''),
        'required', p_required, 'options', (select jsonb_agg(case jsonb_typeof(o) when 'object' then o
            else jsonb_build_object('value', o, 'label', o) end) from jsonb_array_elements(p_options) o)))
$$;
comment on function campaign.field(text, text, text, jsonb, jsonb, boolean) is 'A field of a form.';

-- The answer with a page: p_parts are those that it has. A message that a redirect left is shown once.
create or replace function campaign.answer_page(request jsonb, p_title text, p_parts jsonb) returns jsonb language plpgsql stable as $$
declare
    v_message  text;
begin
    begin
        v_message := convert_from(decode(request #>> '{cookies,campaign_message}', 'hex'), 'UTF8');
    exception when others then
        -- Cookies come from outside.
        null;
    end;
    return jsonb_build_object('kind', 'html', 'template', 'page.html', 'data',
            '{"error": null, "links": null, "forms": [], "tables": [], "pages": null}'
            || jsonb_build_object('title', p_title, 'message', v_message) || p_parts)
        || case when request #>> '{cookies,campaign_message}' is null then '{}' else '{"cookies": {"campaign_message": null}}'::jsonb end;
end $$;
comment on function campaign.answer_page(jsonb, text, jsonb) is 'Answers with a page.';

create or replace function campaign.answer_redirect(p_location text, p_message text) returns jsonb language sql immutable as $$
    select jsonb_build_object('kind', 'redirect', 'status', 303, 'location', p_location,
        'cookies', jsonb_build_object('campaign_message', encode(convert_to(p_message, 'UTF8'), 'hex')))
$$;
comment on function campaign.answer_redirect(text, text) is 'Answers with another page, which shows the message.';

-- A page of a list holds 50 rows; the list has one more when there is a next page.
create or replace function campaign.page_of(request jsonb) returns integer language sql immutable as $$
    select greatest(1, least(coalesce((request #>> '{input,page}')::bigint, 1), 1000000))::integer
$$;
comment on function campaign.page_of(jsonb) is 'Which page of a list is asked for.';

-- Promises: the ways to the pages before and after, which keep what p_fields hold.
create or replace function campaign.pages(request jsonb, p_fields jsonb, p_is_more boolean) returns jsonb language sql immutable as $$
    select jsonb_build_object('fields', p_fields, 'buttons',
        case when campaign.page_of(request) > 1 then jsonb_build_array(jsonb_build_object('value', campaign.page_of(request) - 1, 'label', '← Previous')) else '[]' end
        || case when p_is_more then jsonb_build_array(jsonb_build_object('value', campaign.page_of(request) + 1, 'label', 'Next →')) else '[]' end)
$$;
comment on function campaign.pages(jsonb, jsonb, boolean) is 'The ways to other pages of a list.';

-- Promises: a list: its filters as they were filled in, its rows, and the ways to the pages before and after. p_rows has up to 51 rows.
create or replace function campaign.answer_list(request jsonb, p_title text, p_filters jsonb, p_columns text[], p_rows jsonb, p_more jsonb default '{}')
returns jsonb language sql stable as $$
    select campaign.answer_page(request, p_title, jsonb_build_object('links', p_more -> 'links',
        'forms', case when p_filters = '[]' then p_filters
            else jsonb_build_array(jsonb_build_object('method', 'get', 'fields', p_filters, 'windows', null, 'button', 'Search')) end,
        'tables', jsonb_build_array(jsonb_build_object('title', null, 'actions', p_more -> 'actions', 'columns', to_jsonb(p_columns), 'rows', p_rows - 50)),
        'pages', campaign.pages(request, p_filters, jsonb_array_length(p_rows) > 50)))
$$;
comment on function campaign.answer_list(jsonb, text, jsonb, text[], jsonb, jsonb) is 'Answers with a list.';

-- A text to look for, as a pattern of ilike.
create or replace function campaign.pattern(request jsonb) returns text language sql immutable as $$
    select '%' || regexp_replace(coalesce(request #>> '{input,q}', ''), '([\\%_])', '\\\1', 'g') || '%'
$$;
comment on function campaign.pattern(jsonb) is 'What is searched for, as a pattern.';
