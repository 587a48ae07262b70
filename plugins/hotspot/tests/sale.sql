-- Codes, prices and profiles.
do $$
begin
    assert (select b.price = 10 and b.data_label = '15GB_(3_days)' from hotspot.bundle b where b.code = '10_GHS__15GB_(3_days)'), 'a code is price and data';
    assert hotspot.data_text('15GB_(3_days)') = '15GB  valid for 3 days' and hotspot.data_text('(Unlimited_24hrs)') = 'Unlimited 24hrs', 'data reads well';
    assert hotspot.match_profile(3, '{30GHS x,3GHS y}') = '3GHS y', 'the whole number counts';
    assert (select array_agg(a.code) from hotspot.data_allocation('{2,3,15}', 340.29) a) = '{3_GHS__340.29MB,15_GHS__1.7GB}', 'allocation';
end $$;
