do $$
begin
    assert invoice.round_half_even(0.125, 2) = 0.12 and invoice.round_half_even(0.075, 2) = 0.08 and invoice.round_half_even(0.005, 2) = 0.00, 'half to even';
    assert invoice.make_change(90, '{50,20}') = '{"50": 1, "20": 2}' and invoice.make_change(8, '{6,4}') = '{"6": 1, "remaining": 2}', 'greedy change';
end $$;
