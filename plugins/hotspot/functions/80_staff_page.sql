-- The staff's pages. The daemon lets operators in only; who it is stands in the log.

create or replace function hotspot.dashboard_body() returns jsonb language sql stable as $$
    select d.payload || jsonb_build_object('computed_at', d.computed_at, 'as_of', to_char(d.computed_at at time zone hotspot.zone(), 'YYYY-MM-DD HH24:MI:SS'))
    from hotspot.dashboard d
$$;
comment on function hotspot.dashboard_body() is 'The dashboard''s one row.';

create or replace function hotspot.get_dashboard(request jsonb) returns jsonb language sql stable as $$
    select hotspot.page('staff.html', 'dashboard', hotspot.dashboard_body())
$$;
comment on function hotspot.get_dashboard(jsonb) is 'GET /hotspot/';

create or replace function hotspot.get_dashboard_api(request jsonb) returns jsonb language sql stable as $$
    select jsonb_build_object('status', 200, 'body', hotspot.dashboard_body())
$$;
comment on function hotspot.get_dashboard_api(jsonb) is 'GET /api/hotspot/dashboard';

-- The filters of a page as its form shows them, and the query that leads to other pages of it.
create or replace function hotspot.shown_filters(p_input jsonb) returns jsonb language sql immutable as $$
    select coalesce(jsonb_object_agg(e.key, coalesce(e.value, '')), '{}') from jsonb_each_text(p_input - 'page') e (key, value)
$$;
comment on function hotspot.shown_filters(jsonb) is 'Filters as texts.';

create or replace function hotspot.get_sales(request jsonb) returns jsonb language sql stable as $$
    select hotspot.page('staff.html', 'sales', jsonb_build_object('list', hotspot.sales_page(request -> 'input'), 'filters', hotspot.shown_filters(request -> 'input')))
$$;
comment on function hotspot.get_sales(jsonb) is 'GET /hotspot/sales/';

create or replace function hotspot.get_refunds(request jsonb) returns jsonb language sql stable as $$
    select hotspot.page('staff.html', 'refunds', jsonb_build_object('number', p.page, 'more', count(r.id) > 100,
        'sales', coalesce(jsonb_agg(to_jsonb(r) || jsonb_build_object('age', r.age::text,
            'local_paid_at', to_char(r.paid_at at time zone p.zone, 'YYYY-MM-DD HH24:MI:SS')) order by r.n) filter (where r.n <= 100), '[]')))
    from (select greatest(coalesce((request #>> '{input,page}')::bigint, 1), 1) as page, hotspot.zone() as zone offset 0) p
    left join lateral (select f.*, row_number() over () as n from (select * from hotspot.refundable limit 101 offset (p.page - 1) * 100) f) r on true
    group by p.page, p.zone
$$;
comment on function hotspot.get_refunds(jsonb) is 'GET /hotspot/refunds/';

create or replace function hotspot.post_refund(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_input  jsonb := request -> 'input';
begin
    perform hotspot.refund((v_input ->> 'sale')::uuid, v_input ->> 'reason', request ->> 'actor', coalesce((v_input ->> 'override')::boolean, false));
    return hotspot.redirect('/hotspot/refunds/');
end $$;
comment on function hotspot.post_refund(jsonb) is 'POST /hotspot/refunds/';

-- A hundred entries, newest first. Filters: actor, object_type, action, date.
create or replace function hotspot.get_logs(request jsonb) returns jsonb language sql stable as $$
    select hotspot.page('staff.html', 'logs', jsonb_build_object('filters', hotspot.shown_filters(f.input), 'number', f.page, 'entries', (
        select coalesce(jsonb_agg(to_jsonb(l) || jsonb_build_object('local_time', to_char(l.action_time at time zone f.zone, 'YYYY-MM-DD HH24:MI:SS'))
            order by l.action_time desc, l.id), '[]')
        from (select e.* from hotspot.log_entry e
            where e.actor = coalesce(nullif(f.input ->> 'actor', ''), e.actor) and e.object_type = coalesce(nullif(f.input ->> 'object_type', ''), e.object_type)
                and e.action_flag = coalesce(nullif(f.input ->> 'action', ''), e.action_flag)
                and (f.day is null or e.action_time >= f.day::timestamp at time zone f.zone and e.action_time < (f.day + 1)::timestamp at time zone f.zone)
            order by e.action_time desc, e.id limit 100 offset (f.page - 1) * 100) l)))
    from (select request -> 'input' as input, (request #>> '{input,date}')::date as day, hotspot.zone() as zone,
        greatest(coalesce((request #>> '{input,page}')::bigint, 1), 1) as page offset 0) f
$$;
comment on function hotspot.get_logs(jsonb) is 'GET /hotspot/logs/';

create or replace function hotspot.get_log(request jsonb) returns jsonb language plpgsql stable as $$
declare
    v_entry  hotspot.log_entry;
begin
    select * into v_entry from hotspot.log_entry e where e.id = (request #>> '{input,id}')::uuid;
    if not found then
        perform hotspot.refuse('RP404', 'There is no such log entry.');
    end if;
    return hotspot.page('staff.html', 'log', jsonb_build_object('entry', to_jsonb(v_entry)
        || jsonb_build_object('local_time', to_char(v_entry.action_time at time zone hotspot.zone(), 'YYYY-MM-DD HH24:MI:SS'))));
end $$;
comment on function hotspot.get_log(jsonb) is 'GET /hotspot/logs/{id}';

create or replace function hotspot.voucher_page(p_message text) returns jsonb language sql stable as $$
    select hotspot.page('staff.html', 'vouchers', jsonb_build_object('message', p_message,
        'pool', (select coalesce(jsonb_agg(to_jsonb(v) order by v.bundle_code), '[]') from (select coalesce(v.bundle_code, 'any') as bundle_code,
            count(*) filter (where v.claimed) as claimed, count(*) filter (where not v.claimed) as unclaimed from hotspot.voucher v group by 1) v),
        'bundles', (select coalesce(jsonb_agg(b.code order by b.position, b.price), '[]') from hotspot.bundle b where b.is_active and not b.is_test)))
$$;
comment on function hotspot.voucher_page(text) is 'The pool, perhaps with what was done.';

create or replace function hotspot.get_vouchers(request jsonb) returns jsonb language sql stable as $$
    select hotspot.voucher_page(null)
$$;
comment on function hotspot.get_vouchers(jsonb) is 'GET /hotspot/vouchers/';

create or replace function hotspot.post_vouchers(request jsonb, files bytea[]) returns jsonb language plpgsql volatile as $$
declare
    v_text  text;
begin
    begin
        v_text := convert_from(files[(request #>> '{input,file,index}')::integer], 'UTF8');
    exception when character_not_in_repertoire or untranslatable_character then
        perform hotspot.refuse('RP400', 'The file is no text in UTF-8.');
    end;
    return hotspot.voucher_page(hotspot.load_vouchers(v_text, nullif(request #>> '{input,bundle}', ''), request #>> '{input,file,filename}', request ->> 'actor'));
end $$;
comment on function hotspot.post_vouchers(jsonb, bytea[]) is 'POST /hotspot/vouchers/';
