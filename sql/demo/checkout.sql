-- A customer picks a bundle; the code comes by SMS. Returns the token of his visit.
select hotspot.start_checkout('Ama Mensah', '0241234567', '3_GHS__2GB_(24hrs)')::text as token
