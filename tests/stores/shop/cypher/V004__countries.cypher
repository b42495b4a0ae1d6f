UNWIND ['DE', 'FR', 'IT'] AS code
MERGE (:Country {code: code});
