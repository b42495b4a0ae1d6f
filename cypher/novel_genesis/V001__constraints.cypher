CREATE CONSTRAINT unique_novel_novel_id IF NOT EXISTS FOR (n:Novel) REQUIRE n.novel_id IS UNIQUE;
CREATE CONSTRAINT unique_character_id IF NOT EXISTS FOR (n:Character) REQUIRE n.id IS UNIQUE;
CREATE CONSTRAINT unique_world_rule_id IF NOT EXISTS FOR (n:WorldRule) REQUIRE n.id IS UNIQUE;
CREATE CONSTRAINT unique_event_id IF NOT EXISTS FOR (n:Event) REQUIRE n.id IS UNIQUE;
CREATE CONSTRAINT unique_location_id IF NOT EXISTS FOR (n:Location) REQUIRE n.id IS UNIQUE;
CREATE CONSTRAINT unique_transportation_id IF NOT EXISTS FOR (n:Transportation) REQUIRE n.id IS UNIQUE;
CREATE CONSTRAINT unique_character_state_id IF NOT EXISTS FOR (n:CharacterState) REQUIRE n.id IS UNIQUE;
CREATE CONSTRAINT unique_organization_id IF NOT EXISTS FOR (n:Organization) REQUIRE n.id IS UNIQUE;
