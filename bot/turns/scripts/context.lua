-- What other people have said, and the threads in which somebody has spoken.

-- The id itself, of which a key has the written form.
local function unquoted(written)
  return (string.gsub(written, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end))
end

-- As within a JSON string.
local function in_json(written)
  return (string.gsub(unquoted(written), '[\\"]', '\\%0'))
end

-- As ThreadKey writes it.
local function percent(letter)
  return string.format('%%%02X', string.byte(letter))
end

-- Notes that a person has spoken in a thread, so that it can be found. It expires with the history.
local function note_of(platform, written, thread)
  local name = key('of', platform, written)
  redis.call('SADD', name, thread)
  keep(name)
end

-- Where the string of a JSON text ends that begins at `from`; nil if it does not.
local function end_of_string(json, from)
  local at = string.find(json, '["\\]', from + 1)
  while at and string.sub(json, at, at) ~= '"' do at = string.find(json, '["\\]', at + 2) end
  return at
end

-- Removes the messages of a person, and their name, from a context; `id` is as JSON has it. Returns the messages, too.
local function without_words(json, id)
  local from, removed = 1, {}
  while true do
    local at, name_at = string.find(json, '"person": {"id": "' .. id .. '", "name": "', from, true)
    local name_end = at and end_of_string(json, name_at)
    if not name_end then return json, removed end
    local _, text_at = string.find(json, '^}, "text": "', name_end + 1)
    local text_end = text_at and end_of_string(json, text_at)
    from = name_at
    if text_end then
      local before = string.sub(json, math.max(at - 500, 1), at - 1)
      table.insert(removed, string.match(before, '{"id": "([^"\\]*)", $'))
      local nobody = '"person": {"id": "", "name": ""}, "text": "'
      json = string.sub(json, 1, at - 1) .. nobody .. string.sub(json, text_end)
      from = at + #nobody
    end
  end
end

-- Removes people who are being forgotten from what a worker saves.
local function without_forgotten(json, thread)
  if json == '' then return json end
  for _, who in ipairs(redis.call('ZRANGE', prefix .. 'forgetting', 0, -1)) do
    local platform, written = string.match(who, '^person:([^:]*):(.*)$')
    if platform == platform_of(thread) then json = without_words(json, in_json(written)) end
  end
  return json
end

-- Notes the messages of a context of a thread, or of one of its exchanges, so that deleted ones can be found.
local function note_context_messages(thread, value)
  local said = value.messages or value.context
  said = type(said) == 'table' and said or {}
  for _, one in ipairs({value.quote or {}, unpack(said)}) do
    if type(one) == 'table' and type(one.id) == 'string' then
      redis.call('SADD', key('heard', one.id), thread)
      keep(key('heard', one.id))
      local person = type(one.person) == 'table' and one.person.id
      if type(person) == 'string' and person ~= '' then
        note_of(platform_of(thread), (string.gsub(person, '[^%w_.~-]', percent)), thread)
      end
    end
  end
end

-- As long as a thread is used, the messages that its exchanges show can be found.
local function renew_context_index(thread)
  for _, line in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do
    if string.find(line, '"context": [', 1, true) or string.find(line, '"quote": {', 1, true) then
      note_context_messages(thread, decoded(line))
    end
  end
end

-- Empties the text of a message in a context. In a JSON string the quotes would have backslashes.
local function without_text(json, id)
  local _, at = string.find(json, '{"id": "' .. id .. '", "person": ', 1, true)
  local _, from = string.find(json, ', "text": "', at or #json, true)
  local to = from and string.find(json, '["\\]', from + 1)
  while to and string.sub(json, to, to) ~= '"' do to = string.find(json, '["\\]', to + 2) end
  return to and string.sub(json, 1, from) .. string.sub(json, to) or json
end

-- A turn that runs has the text and will report it with its exchange.
local function drop_from_contexts(id)
  for _, thread in ipairs(redis.call('SMEMBERS', key('heard', id))) do
    local history = key('history', thread)
    for at, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
      local without = without_text(line, id)
      if without ~= line then redis.call('LSET', history, at - 1, without) end
    end
    local newest = redis.call('GET', key('newest', thread))
    local turns = redis.call('LRANGE', key('mailbox', thread), 0, -1)
    if type(newest) == 'string' then table.insert(turns, newest) end
    for _, one in ipairs(turns) do
      local name = key('turn', one)
      local context = redis.call('HGET', name, 'context')
      if context then
        local unheard = ids_in(redis.call('HGET', name, 'unheard') or '')
        table.insert(unheard, id)
        redis.call('HSET', name, 'context', without_text(context, id), 'unheard', cjson.encode(unheard))
      end
    end
  end
  redis.call('DEL', key('heard', id))
end
