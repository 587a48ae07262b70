-- Commands: rowbeat app hotspot <command>.

create or replace function hotspot.run_load_vouchers(arguments jsonb) returns setof text language sql volatile as $$
    select hotspot.load_vouchers(arguments #>> '{file,content}', nullif(arguments ->> 'bundle', ''), arguments #>> '{file,filename}', null)
$$;
comment on function hotspot.run_load_vouchers(jsonb) is 'Loads vouchers into the pool.';

create or replace function hotspot.run_bundles(arguments jsonb) returns setof text language sql immutable as $$
    select coalesce((select a.code from hotspot.data_allocation(array[p.price], (arguments ->> 'base')::numeric) a),
        format('Price %s is outside the allowed ranges.', trim_scale(p.price)))
    from (select t::numeric as price, n from jsonb_array_elements_text(arguments -> 'prices') with ordinality e (t, n)) p order by p.n
$$;
comment on function hotspot.run_bundles(jsonb) is 'Codes of bundles for prices.';
