-- Names that are too long stay usable, and liveness is a matter of dates.
do $$
declare
    v_name  text := freight.cut_name('notify_new_' || repeat('é', 60));
begin
    assert octet_length(v_name) <= 63 and v_name ~ '_[0-9a-f]{8}$', v_name;
    assert freight.is_live(true, null, '2023-06-01', '2023-06-01') and not freight.is_live(false, null, null, '2023-06-01'), 'the last day counts';
    assert (freight.judge_conditions('{"conditions": []}', '{}')).holds, 'no conditions always hold';
end $$;
