# One rule for all folders: FOLDER/*.cpp is the library kdacheck_FOLDER, FOLDER/tests/*.cpp the program FOLDER_tests.

add_library(kdacheck_catch_main STATIC ${CMAKE_CURRENT_LIST_DIR}/catch_main.cpp)

# kdacheck_library(name SOURCES... [LINK libraries...])
function(kdacheck_library folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(kdacheck_${folder} STATIC ${ARG_SOURCES})
  target_link_libraries(kdacheck_${folder} PUBLIC kdacheck_flags ${ARG_LINK})
endfunction()

# kdacheck_tests(name SOURCES... LINK libraries...): one ctest entry per program, so that each runs alone in seconds.
function(kdacheck_tests folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  if(NOT ARG_SOURCES)
    return()
  endif()
  foreach(source ${ARG_SOURCES})
    get_filename_component(base ${source} NAME_WE)
    set(target ${folder}_${base})
    add_executable(${target} ${source})
    target_link_libraries(${target} PRIVATE ${ARG_LINK} kdacheck_catch_main)
    add_test(NAME ${folder}/${base} COMMAND ${target} --warn NoAssertions)
  endforeach()
endfunction()
